"""Reading files that may be damaged or made by others: with limits, and with errors that say what is wrong."""
