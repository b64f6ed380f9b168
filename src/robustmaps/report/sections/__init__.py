"""The sections of the page: what each tells of the runs."""
