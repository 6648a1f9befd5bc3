//! Registration of a task definition: checks with AWS's own messages, defaults, and what a task of it reserves.
