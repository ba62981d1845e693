"""The settings of every command, a file for each room that reads them."""
