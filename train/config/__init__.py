"""The settings of every command, a file for each package that reads them."""
