//! CloudWatch Logs filter patterns: terms, phrases, exclusions, JSON and space-delimited patterns.
