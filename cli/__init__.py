"""Code shared by the scripts: flags, progress, log, exit codes."""
