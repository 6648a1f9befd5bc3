//! What DescribeScalingActivities says about an activity, and the service event that mirrors it.

/// Description of an activity that sets the desired count.
pub fn setting_desired(desired: u32) -> String {
    format!("Setting desired count to {desired}.")
}

/// Description of an attempt that changed nothing (shown with IncludeNotScaledActivities).
pub const NOT_SCALED: &str = "Attempting to scale due to alarm triggered";

/// Cause of an activity that an alarm set off.
pub fn cause(alarm: &str, policy: &str) -> String {
    format!("monitor alarm {alarm} in state ALARM triggered policy {policy}")
}

/// StatusMessage while the service does not yet run the new count.
pub fn in_progress(desired: u32) -> String {
    format!("Successfully set desired count to {desired}. Waiting for change to be fulfilled by ecs.")
}

pub fn successful(desired: u32) -> String {
    format!("Successfully set desired count to {desired}. Change successfully fulfilled by ecs.")
}

pub fn failed(desired: u32, why: &str) -> String {
    format!("Failed to set desired count to {desired}. Reason: {why}")
}

/// The service's own event for the same thing.
pub fn service_event(status_message: &str, cause: &str) -> String {
    format!("Message: {status_message} Cause: {cause}")
}
