//! The log store: group, stream, ordered events, in compressed segments on disk.
