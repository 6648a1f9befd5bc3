use std::collections::BTreeMap;

use proptest::prelude::*;

use std::sync::Arc;

use super::*;
use crate::model::InstanceId;
use crate::model::instance::InstanceStatus;
use crate::model::task::Resources;

fn instance() -> Instance {
    let attribute = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    Instance {
        id: InstanceId::new("i1"),
        cluster: "default".into(),
        status: InstanceStatus::Active,
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: Resources::default(),
        reserved_tcp_ports: Vec::new(),
        attributes: BTreeMap::from([
            attribute("ecs.instance-type", "g2.2xlarge"),
            attribute("ecs.availability-zone", "us-east-1a"),
            attribute("rack/row.1", "two words"),
            attribute("rank", "9"),
            ("plain".to_owned(), None),
        ]),
        agent_version: "1.14.5".to_owned(),
        docker_version: String::new(),
        host_name: String::new(),
        host_address: String::new(),
        tags: Vec::new(),
        registered_at: Timestamp::parse_iso("2018-06-18T22:28:28.500Z").expect("a date"),
        version: 1,
    }
}

fn load() -> Load {
    Load { tasks: 1, groups: imbl::ordmap! { Arc::from("service:production") => 1, Arc::from("gone") => 0 }, ..Load::default() }
}

fn check(text: &str, expected: bool) {
    let expression = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(expression.matches(&Subject { instance: &instance(), load: &load() }), expected, "{text}");
    let settled = expression.matches_attributes(&instance().attributes);
    assert!(settled.is_none_or(|answer| answer == expected), "{text}: attributes alone say {settled:?}");
}

#[test]
fn what_attributes_settle_is_answered_without_the_rest() {
    for (text, expected) in [
        ("attribute:rank == 9", Some(true)),
        ("runningTasksCount == 1", None),
        ("attribute:rank == 8 and runningTasksCount == 1", Some(false)),
        ("runningTasksCount == 1 and attribute:rank == 8", Some(false)),
        ("attribute:rank == 9 and runningTasksCount == 1", None),
        ("attribute:rank == 9 or runningTasksCount == 1", Some(true)),
        ("runningTasksCount == 1 or attribute:rank == 8", None),
        ("not(attribute:rank == 8 and runningTasksCount == 1)", Some(true)),
        ("not(runningTasksCount == 1)", None),
    ] {
        assert_eq!(parse(text).expect("readable").matches_attributes(&instance().attributes), expected, "{text}");
    }
}

#[test]
fn subjects_and_operators() {
    for (text, expected) in [
        // The Developer Guide's own examples.
        ("attribute:ecs.instance-type =~ g2.* and attribute:ecs.availability-zone != us-east-1d", true),
        ("attribute:ecs.availability-zone in [us-east-1a, us-east-1b]", true),
        ("task:group == service:production", true),
        ("not(task:group == database)", true),
        ("runningTasksCount == 1", true),
        ("agentVersion < 1.14.5", false),
        ("attribute:ecs.instance-type == t2.small or attribute:ecs.availability-zone == us-east-1d", false),
        ("ec2InstanceId in ['i-abcd1234', 'i1']", true),
        // Every operator in both spellings.
        ("attribute:rank equals 9", true),
        ("attribute:rank not_equals 9", false),
        ("attribute:rank > 10", false),
        ("attribute:rank less_than 10", true),
        ("attribute:rank greater_than_equal 9", true),
        ("attribute:rank greater_than 9", false),
        ("attribute:rank <= 8.5", false),
        ("attribute:rank less_than_equal 9", true),
        ("attribute:rank in [8,9]", true),
        ("attribute:rank !in [8,9]", false),
        ("attribute:rank not_in [8]", true),
        ("attribute:ecs.instance-type matches g2.*", true),
        ("attribute:ecs.instance-type not_matches g2.*", false),
        ("attribute:ecs.instance-type !~ m5.*", true),
        ("attribute:plain exists", true),
        ("attribute:plain !exists", false),
        ("attribute:none not_exists", true),
        ("attribute:plain == x", false),
        // A regular expression means the whole value, whatever it contains.
        ("attribute:ecs.instance-type =~ g2", false),
        ("attribute:ecs.instance-type =~ (m5|g2)[.].*", true),
        ("(attribute:ecs.instance-type =~ (m5|g2)[.].*)", true),
        ("attribute:ecs.instance-type =~ g2|x", false),
        (r"attribute:ecs.instance-type =~ ([\w-]{1,8})[.]\d+\w*", true),
        ("attribute:ecs.instance-type =~ 'x|g2.*'", true),
        // Negations hold for what is not there.
        ("attribute:none != x", true),
        ("attribute:none !in [x]", true),
        ("attribute:none =~ .*", false),
        ("attribute:none < 5", false),
        // Names, quotes and blanks.
        ("attribute:rack/row.1 == 'two words'", true),
        ("attribute:rank==9&&agentConnected==true", true),
        ("attribute:rank==8||agentConnected==false", false),
        ("! attribute:rank == 8", true),
        ("!(attribute:rank == 8) and !attribute:rank == 7", true),
        // and binds tighter than or.
        ("attribute:rank == 9 or attribute:rank == 8 and attribute:rank == 7", true),
        ("(attribute:rank == 9 or attribute:rank == 8) and attribute:rank == 7", false),
        // Versions by number, dates by second.
        ("agentVersion >= 1.9.0", true),
        ("agentVersion == 1.14.5.0", true),
        ("agentVersion != 1.14", true),
        ("registeredAt > 2018-06-18", true),
        ("registeredAt == 2018-06-18T22:28:28", true),
        ("registeredAt <= 2018-06-18T22:28:28Z", true),
        ("registeredAt < 2018-06-18T22:28:28+00:00", false),
        ("registeredAt < 2018-06-19", true),
        ("runningTasksCount != 1", false),
        ("task:group == gone", false),
        ("task:group !in [service:production]", false),
        ("task:group =~ service:.*", true),
        ("agentConnected != false", true),
    ] {
        check(text, expected);
    }
}

#[test]
fn errors_say_where_and_what() {
    for (text, position, expected) in [
        ("", 1, "attribute:NAME"),
        ("colour == red", 1, "attribute:NAME"),
        ("attribute: == red", 11, "an attribute's name"),
        ("attribute:a", 12, "an operator"),
        ("attribute:a == b or", 20, "attribute:NAME"),
        ("attribute:a ==", 15, "a value"),
        ("attribute:a in x", 16, "a list"),
        ("attribute:a in [x y]", 19, ", or ]"),
        ("attribute:a in [", 17, "a value"),
        ("attribute:a == 'x", 16, "a closing '"),
        ("(attribute:a == x", 18, ")"),
        ("attribute:a == x)", 17, "and, or, or the end"),
        ("attribute:a == x attribute:b == y", 18, "and, or, or the end"),
        ("attribute:a =~ (x", 16, "a regular expression"),
        ("attribute:a =~ 'x)|(y'", 16, "a regular expression"),
        (r"attribute:a =~ (\w{200}){200}", 16, "a smaller regular expression"),
        ("agentVersion exists", 14, "==, !=, >"),
        ("agentVersion == new", 17, "a version"),
        ("agentConnected > 1", 16, "==, !=, in"),
        ("task:group exists", 12, "==, !=, in"),
        ("registeredAt > yesterday", 16, "a date"),
        ("runningTasksCount > few", 21, "a whole number"),
        ("attribute:ä == ü )", 18, "and, or, or the end"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.position, position, "{text}: {error}");
        assert!(error.expected.starts_with(expected), "{text}: {error}");
    }
    assert_eq!(parse("colour").expect_err("no subject").to_string().split(" expected").next(), Some("at character 1:"));
}

#[test]
fn length_and_nesting_are_bounded() {
    let padded = |blanks: usize| format!("attribute:a exists{}", " ".repeat(blanks));
    assert!(parse(&padded(MAX_CHARACTERS - 18)).is_ok());
    assert_eq!(parse(&padded(MAX_CHARACTERS - 17)).expect_err("too long").position, MAX_CHARACTERS + 1);

    let nested = |levels: usize| format!("{}attribute:a exists{}", "(".repeat(levels), ")".repeat(levels));
    assert!(parse(&nested(MAX_NESTING - 1)).is_ok());
    assert!(parse(&nested(MAX_NESTING)).is_err());
    assert!(parse(&"!".repeat(1_900)).is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:()!=~<>&|\\[\\], '\"ä.*]{0,60}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.position <= text.chars().count() + 1);
        }
    }

    #[test]
    fn negation_negates(tail in "(== 9|!= 9|in \\[9\\]|< 5|exists|=~ [0-9])") {
        let ask = |text: String| parse(&text).expect("readable").matches(&Subject { instance: &instance(), load: &load() });
        prop_assert_ne!(ask(format!("attribute:rank {tail}")), ask(format!("not(attribute:rank {tail})")));
    }
}
