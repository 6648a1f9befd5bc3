//! The metrics store: series by namespace, name and dimensions; 1-second points, rollups, retention tiers.
