"""Archives as rows and files: which sessions are in an archive, the folder of archives, and an archive that is open."""
