"""Training configurations: one folder an architecture; tiny (seconds), base (released), paper (published sizes)."""
