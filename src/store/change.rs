//! A change to one row: what the journal holds and what watchers are told. `None` deletes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::alarm::Alarm;
use crate::model::cluster::Cluster;
use crate::model::definition::TaskDefinition;
use crate::model::instance::Instance;
use crate::model::scaling::{ScalableTarget, ScalingActivity, ScalingPolicy};
use crate::model::service::Service;
use crate::model::task::Task;
use crate::model::{ClusterName, DefinitionKey, InstanceId, ServiceKey, TaskId};

/// An activity's key puts a service's activities in the order of their start.
pub type ActivityKey = (ServiceKey, i64, String);
pub type PolicyKey = (ServiceKey, String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    Cluster(ClusterName, Option<Arc<Cluster>>),
    Definition(DefinitionKey, Option<Arc<TaskDefinition>>),
    Service(ServiceKey, Option<Arc<Service>>),
    Task(TaskId, Option<Arc<Task>>),
    Instance(InstanceId, Option<Arc<Instance>>),
    Alarm(String, Option<Arc<Alarm>>),
    Target(ServiceKey, Option<Arc<ScalableTarget>>),
    Policy(PolicyKey, Option<Arc<ScalingPolicy>>),
    Activity(ActivityKey, Option<Arc<ScalingActivity>>),
}

pub fn activity_key(activity: &ScalingActivity) -> ActivityKey {
    (activity.service.clone(), activity.started_at.0, activity.id.clone())
}

macro_rules! puts {
    ($($row:ident => $change:ident by $key:expr;)*) => { $(
        impl From<$row> for Change {
            fn from(row: $row) -> Change {
                #[allow(clippy::redundant_closure_call)]
                Change::$change(($key)(&row), Some(Arc::new(row)))
            }
        }
    )* };
}

puts! {
    Cluster => Cluster by |c: &Cluster| c.name.clone();
    TaskDefinition => Definition by |d: &TaskDefinition| d.key.clone();
    Service => Service by |s: &Service| s.key.clone();
    Task => Task by |t: &Task| t.id.clone();
    Instance => Instance by |i: &Instance| i.id.clone();
    Alarm => Alarm by |a: &Alarm| a.name.clone();
    ScalableTarget => Target by |t: &ScalableTarget| t.service.clone();
    ScalingPolicy => Policy by |p: &ScalingPolicy| (p.service.clone(), p.name.clone());
    ScalingActivity => Activity by activity_key;
}
