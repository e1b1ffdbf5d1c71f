"""What the scripts share: flags, progress, log, exit codes."""
