//! Registration of a task definition: checks with AWS's own messages, defaults, and what a task of it reserves.

use crate::model::definition::TaskDefinition;
use crate::model::task::{Overrides, Resources};

pub fn reserved(definition: &TaskDefinition, overrides: &Overrides) -> Resources {
    todo!("{} {overrides:?}", definition.key)
}
