//! Where a task goes: filters say where it may run, strategies say where it runs best, and a refusal counts what each filter
//! turned away.

use crate::model::InstanceId;
use crate::model::decision::Reason;
use crate::model::instance::{Instance, Load};
use crate::model::placement::{PlacementConstraint, PlacementStrategy};
use crate::model::task::Resources;

/// What is to be placed: `count` tasks that are alike.
pub struct Request<'a> {
    pub count: u32,
    pub resources: &'a Resources,
    /// Spreading and distinctInstance count the tasks of this group.
    pub group: &'a str,
    /// The caller's and the task definition's together.
    pub constraints: &'a [PlacementConstraint],
    pub strategy: &'a [PlacementStrategy],
    /// A service without a strategy is spread over zones, then instances; a standalone task goes anywhere.
    pub of_service: bool,
    /// For `random`, and to break the last ties.
    pub seed: u64,
}

pub struct Candidate<'a> {
    pub instance: &'a Instance,
    pub load: &'a Load,
}

pub enum Outcome {
    Placed { instance: InstanceId, reason: Reason },
    Refused(Refusal),
}

/// Why no instance would do.
pub struct Refusal {
    /// How many instances each filter turned away, worst first.
    pub tally: Vec<(Filter, u32)>,
    /// The instance that passed the most filters, and the one it failed.
    pub closest: Option<(InstanceId, Filter)>,
    /// Per instance: RunTask's `failures`.
    pub failures: Vec<(InstanceId, Filter)>,
    pub reason: Reason,
}

/// In the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    Active,
    Connected,
    Cpu,
    Memory,
    Ports,
    DistinctInstance,
    MemberOf,
}

/// One outcome per task asked for; tasks placed earlier count for the later ones. An unreadable memberOf expression places nothing:
/// check it with `expression::parse` when the client gives it.
pub fn place(request: &Request, candidates: &[Candidate]) -> Vec<Outcome> {
    todo!("{} {}", request.count, candidates.len())
}
