"""What the verbs share: options, output and progress on a terminal."""
