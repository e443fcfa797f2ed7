"""The page to try a model in a browser: what it computes, what it draws, and the server, which listens here only."""
