"""What every room of the simulation may use: names, plain infos, pictures, whole files, HTTP."""
