"""What a run leaves behind: pictures, tables, the run folder."""
