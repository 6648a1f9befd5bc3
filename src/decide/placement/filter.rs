//! Where a task may run: each filter, in order, and what it is called in answers and events.

use std::collections::BTreeMap;

use super::{Filter, Request};
use crate::decide::expression::{self, Expression, Subject};
use crate::model::instance::{Instance, InstanceStatus, Load};
use crate::model::task::Resources;

impl Filter {
    pub const ALL: [Filter; 7] = [
        Filter::Active,
        Filter::Connected,
        Filter::Cpu,
        Filter::Memory,
        Filter::Ports,
        Filter::DistinctInstance,
        Filter::MemberOf,
    ];

    /// `failures[].reason` of RunTask and StartTask ("API failure reasons" in the Amazon ECS Developer Guide).
    pub fn failure_code(self) -> &'static str {
        match self {
            Filter::Active => "INACTIVE",
            Filter::Connected => "AGENT",
            Filter::Cpu => "RESOURCE:CPU",
            Filter::Memory => "RESOURCE:MEMORY",
            Filter::Ports => "RESOURCE:PORTS",
            Filter::DistinctInstance => "DistinctInstance placement constraint unsatisfied.",
            Filter::MemberOf => "MemberOf placement constraint unsatisfied.",
        }
    }

    /// The filter's name in evidence and in metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Filter::Active => "active",
            Filter::Connected => "connected",
            Filter::Cpu => "cpu",
            Filter::Memory => "memory",
            Filter::Ports => "ports",
            Filter::DistinctInstance => "distinct_instance",
            Filter::MemberOf => "member_of",
        }
    }
}

/// A request's filters, made ready once for all instances.
pub(super) struct Rules<'a> {
    pub needs: &'a Resources,
    group: &'a str,
    pub distinct: bool,
    /// In the request's order.
    pub member_of: Vec<MemberOf<'a>>,
}

pub(super) struct MemberOf<'a> {
    /// As the client wrote it, for people.
    pub text: &'a str,
    /// None: unreadable, and so nothing is a member.
    expression: Option<Expression>,
}

pub(super) fn rules<'a>(request: &Request<'a>) -> Rules<'a> {
    let mut rules = Rules { needs: request.resources, group: request.group, distinct: false, member_of: Vec::new() };
    for constraint in request.constraints {
        let text = constraint.expression.as_deref().unwrap_or("");
        match constraint.kind.as_deref() {
            Some("distinctInstance") => rules.distinct = true,
            Some("memberOf") => rules.member_of.push(MemberOf { text, expression: expression::parse(text).ok() }),
            // A constraint that is not understood must not be taken for one that is met.
            _ => rules.member_of.push(MemberOf { text, expression: None }),
        }
    }
    rules
}

impl MemberOf<'_> {
    pub fn accepts(&self, instance: &Instance, load: &Load) -> bool {
        self.expression.as_ref().is_some_and(|e| e.matches(&Subject { instance, load }))
    }

    /// For every instance that has these attributes; None where they do not settle it.
    pub fn accepts_kind(&self, attributes: &BTreeMap<String, Option<String>>) -> Option<bool> {
        self.expression.as_ref().map_or(Some(false), |e| e.matches_attributes(attributes))
    }

    pub fn is_readable(&self) -> bool {
        self.expression.is_some()
    }
}

impl Rules<'_> {
    pub fn first_failed(&self, instance: &Instance, load: &Load) -> Option<Filter> {
        Filter::ALL.into_iter().find(|&filter| !self.passes(filter, instance, load))
    }

    fn passes(&self, filter: Filter, instance: &Instance, load: &Load) -> bool {
        match filter {
            Filter::Active => instance.status == InstanceStatus::Active,
            Filter::Connected => instance.agent_connected,
            Filter::Cpu => fits(self.needs.cpu, load.cpu, instance.registered.cpu),
            Filter::Memory => fits(self.needs.memory, load.memory, instance.registered.memory),
            Filter::Ports => self.taken_ports(instance, load).next().is_none(),
            Filter::DistinctInstance => !self.distinct || load.groups.get(self.group).is_none_or(|&tasks| tasks == 0),
            Filter::MemberOf => self.member_of.iter().all(|m| m.accepts(instance, load)),
        }
    }

    /// The ports that the task needs and cannot have here, with their protocols. What an instance registers as PORTS and PORTS_UDP
    /// are the ports it keeps for itself, as in ECS's registeredResources.
    pub fn taken_ports<'b>(&'b self, instance: &'b Instance, load: &'b Load) -> impl Iterator<Item = (u16, &'static str)> + 'b {
        let tcp = self.needs.tcp_ports.iter().filter(|port| {
            load.tcp_ports.contains(port)
                || instance.reserved_tcp_ports.contains(port)
                || instance.registered.tcp_ports.contains(port)
        });
        let udp = self
            .needs
            .udp_ports
            .iter()
            .filter(|port| load.udp_ports.contains(port) || instance.registered.udp_ports.contains(port));
        tcp.map(|&port| (port, "TCP")).chain(udp.map(|&port| (port, "UDP")))
    }
}

fn fits(need: u32, taken: u32, all: u32) -> bool {
    u64::from(need) + u64::from(taken) <= u64::from(all)
}
