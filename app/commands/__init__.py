"""The commands of `viewgate`, one file each; pyproject.toml lists them as entry points."""
