//! Constraints and strategies as a client gives them, checked before anything is stored.

use super::rank::MAX_STRATEGIES;
use crate::decide::expression;
use crate::model::placement::{PlacementConstraint, PlacementStrategy};

/// RunTask and CreateService: "You can specify a maximum of 10 constraints for each task".
const MAX_CONSTRAINTS: usize = 10;

/// For CreateService, UpdateService and RunTask: the message of their InvalidParameterException. Where ECS's own words are not
/// known, ours say what is wrong with which value.
pub fn check(constraints: &[PlacementConstraint], strategy: &[PlacementStrategy]) -> Result<(), String> {
    if constraints.len() > MAX_CONSTRAINTS {
        return Err(format!("Too many placement constraints: at most {MAX_CONSTRAINTS} can be specified."));
    }
    if strategy.len() > MAX_STRATEGIES {
        return Err(format!("Too many placement strategies: at most {MAX_STRATEGIES} can be specified."));
    }
    constraints.iter().try_for_each(check_constraint)?;
    strategy.iter().try_for_each(check_strategy)
}

/// For RegisterTaskDefinition, which takes memberOf only: the message of its ClientException.
pub fn check_of_definition(constraints: &[PlacementConstraint]) -> Result<(), String> {
    if let Some(kind) = constraints.iter().filter_map(|c| c.kind.as_deref()).find(|kind| *kind != "memberOf") {
        return Err(format!("constraint.type '{kind}' is not supported."));
    }
    check(constraints, &[])
}

fn check_constraint(constraint: &PlacementConstraint) -> Result<(), String> {
    match (constraint.kind.as_deref(), constraint.expression.as_deref()) {
        (Some("distinctInstance"), None) => Ok(()),
        // ECS refuses an empty expression here as well.
        (Some("distinctInstance"), Some(_)) => Err("distinctInstance expression should not be specified.".to_owned()),
        (Some("memberOf"), None | Some("")) => Err("memberOf expression should not be null or empty.".to_owned()),
        (Some("memberOf"), Some(text)) => match expression::parse(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("Invalid expression '{text}': {error}.")),
        },
        (Some(kind), _) => Err(format!("constraint.type '{kind}' is not supported.")),
        (None, _) => Err("constraint.type should not be null or empty.".to_owned()),
    }
}

fn check_strategy(strategy: &PlacementStrategy) -> Result<(), String> {
    let field = strategy.field.as_deref().filter(|field| !field.is_empty());
    match (strategy.kind.as_deref(), field) {
        (Some("random"), None) => Ok(()),
        (Some("random"), Some(_)) => Err("random strategy field should not be specified.".to_owned()),
        (Some(kind @ ("spread" | "binpack")), None) => Err(format!("{kind} strategy field should not be null or empty.")),
        (Some("spread"), Some("instanceId" | "host")) => Ok(()),
        (Some("spread"), Some(field)) if field.strip_prefix("attribute:").is_some_and(is_attribute_name) => Ok(()),
        // The console writes CPU and MEMORY.
        (Some("binpack"), Some(field)) if field.eq_ignore_ascii_case("cpu") || field.eq_ignore_ascii_case("memory") => Ok(()),
        (Some(kind @ ("spread" | "binpack")), Some(field)) => {
            Err(format!("strategy.field '{field}' is not supported for strategy.type '{kind}'."))
        }
        (Some(kind), _) => Err(format!("strategy.type '{kind}' is not supported.")),
        (None, _) => Err("strategy.type should not be null or empty.".to_owned()),
    }
}

/// Attribute: "The name must contain between 1 and 128 characters" of letters, digits, `-_/\.`.
fn is_attribute_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_/\\.".contains(c))
}
