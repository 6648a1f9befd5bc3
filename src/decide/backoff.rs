//! How long to wait after the nth failure in a row.
