//! A scalable target's minimum and maximum.

use super::Invalid;

/// Registering a target brings the desired count into its bounds at once: the new count and the activity's Cause. None: it is inside.
pub fn clamp(desired: u32, min: u32, max: u32) -> Option<(u32, String)> {
    if desired < min {
        Some((min, format!("minimum capacity was set to {min}")))
    } else if desired > max {
        Some((max, format!("maximum capacity was set to {max}")))
    } else {
        None
    }
}

pub fn validate(min: u32, max: u32) -> Result<(), Invalid> {
    if min > max {
        return Err(Invalid(format!("Maximum capacity cannot be less than minimum capacity: {max} is less than {min}")));
    }
    Ok(())
}
