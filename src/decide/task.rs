//! A task's status from its containers', and what its agent's reports mean.

use crate::model::Timestamp;
use crate::model::decision::Reason;
use crate::model::definition::TaskDefinition;
use crate::model::link::TaskReport;
use crate::model::task::{StopCode, Task};

/// What a report changes: the task as it now is, and the reasons worth remembering. None: nothing.
pub fn apply_report(
    task: &Task,
    definition: &TaskDefinition,
    report: &TaskReport,
    now: Timestamp,
) -> Option<(Task, Vec<Reason>)> {
    todo!("{} {} {} {now}", task.id, definition.key, report.finished)
}

/// The task with its end asked for. None if that was done before.
pub fn ask_to_stop(task: &Task, code: StopCode, text: &str, now: Timestamp) -> Option<Task> {
    todo!("{} {code:?} {text} {now}", task.id)
}

/// The task STOPPED without its agent's word: its instance is gone.
pub fn give_up(task: &Task, code: StopCode, text: &str, now: Timestamp) -> Task {
    todo!("{} {code:?} {text} {now}", task.id)
}
