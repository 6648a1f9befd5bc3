# What the test of the whole stack runs: calm, more than one task can answer, and next to nothing.
calm    20     3s
surge   200    20s
quiet   10     120s
