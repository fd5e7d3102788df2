"""Run folders: writing a run to the disk and reading it back."""
