"""What operators have: the command line, the doctor, backups and the status page."""
