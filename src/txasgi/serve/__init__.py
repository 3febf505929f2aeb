"""
Processes: the command, and the server that runs in one process.
"""
