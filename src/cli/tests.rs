//! The command line as people type it.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::{Cli, Command};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("beaufort").chain(line.split_whitespace()))
}

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn lines_that_are_understood() {
    for line in [
        "up",
        "up --listen 127.0.0.1:0 --ephemeral --stop-tasks-on-exit --zone a --attribute disk=ssd --attribute gpu --pause-pool 0",
        "up --data-dir /d --cluster c --region eu-west-1 --account-id 123456789012 --agent-token-file f --log-format json",
        "bench --json",
        "serve --agent-token 0123456789",
        "agent --join http://h:4566 --token t --cluster c --zone z --attribute a=b --data-dir /d",
        "agent --join http://h:4566 --token-file f",
        "ps --cluster c --service web --all --json",
        "ps --endpoint http://h:1",
        "--endpoint http://h:1 ps",
        "services --json",
        "logs service/web -f --since 10m --tail 5",
        "logs task/0123",
        "logs --group g --stream s",
        "events",
        "events service/web -f",
        "top --once --tasks --sort memory",
        "why service/c/web -f --limit 5",
        "why alarm/a/b --json",
        "why placement web:1 --count 3 --cluster c",
        "scale service/web 4 --no-wait",
        "scale web 0 --timeout 10s",
        "apply a.json b.json --wait --timeout 2m --json -c demo",
        "apply - --dry-run",
        "gaps --json",
        "health",
        "demo --once --keep --json",
        "load http://127.0.0.1:80/ http://127.0.0.1:81/ --rate 5.5 --for 500ms --json",
        "load service/c/web --profile p --path /x --container-port 80 --health /h --in-flight 5 --timeout 2s",
        "web --port 1 --cpu-ms 2.5 --latency-ms 1 --error-rate 0.1 --memory-mib 5 --concurrency 3 --drain-ms 0",
        "completion fish",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn lines_that_are_refused() {
    for (line, kind) in [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("fly", ErrorKind::InvalidSubcommand),
        ("up --listen nowhere", ErrorKind::ValueValidation),
        ("up --attribute =x", ErrorKind::ValueValidation),
        ("up --agent-token t --agent-token-file f", ErrorKind::ArgumentConflict),
        ("up --log-format xml", ErrorKind::InvalidValue),
        ("agent --token t", ErrorKind::MissingRequiredArgument),
        ("agent --join http://h:1", ErrorKind::MissingRequiredArgument),
        ("apply", ErrorKind::MissingRequiredArgument),
        ("apply a.json --dry-run --wait", ErrorKind::ArgumentConflict),
        ("logs", ErrorKind::MissingRequiredArgument),
        ("logs web", ErrorKind::ValueValidation),
        ("logs service/web --group g", ErrorKind::ArgumentConflict),
        ("logs service/web --since yesterday", ErrorKind::ValueValidation),
        ("why", ErrorKind::MissingRequiredArgument),
        ("why pod/x", ErrorKind::ValueValidation),
        ("why placement --count 2", ErrorKind::MissingRequiredArgument),
        ("scale web", ErrorKind::MissingRequiredArgument),
        ("scale web -1", ErrorKind::UnknownArgument),
        ("scale web many", ErrorKind::ValueValidation),
        ("load", ErrorKind::MissingRequiredArgument),
        ("load http://h/ --rate 5 --profile f", ErrorKind::ArgumentConflict),
        ("load http://h/ --for 5", ErrorKind::ValueValidation),
        ("web --error-rate 2", ErrorKind::ValueValidation),
        ("completion tcsh", ErrorKind::InvalidValue),
        ("--version", ErrorKind::DisplayVersion),
    ] {
        assert_eq!(parse(line).err().map(|e| e.kind()), Some(kind), "{line}");
    }
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    assert_eq!(parse("fly").unwrap_err().exit_code(), 2);
    assert_eq!(parse("up --help").unwrap_err().exit_code(), 0);
}

#[test]
fn every_command_explains_itself_with_examples() {
    for command in Cli::command().get_subcommands().filter(|c| c.get_name() != "help") {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("beaufort "), "{} has no example", command.get_name());
        assert!(command.get_about().is_some(), "{} does not say what it does", command.get_name());
    }
}

#[test]
fn up_takes_its_options_over() {
    let config = |line: &str| match parse(line).unwrap().command {
        Command::Up(args) => args.config().unwrap(),
        other => panic!("{other:?}"),
    };
    let given = config("up --data-dir /d --cluster c --zone a --attribute gpu --agent-token secret-enough");
    assert_eq!(given.data_dir.as_deref(), Some(std::path::Path::new("/d")));
    assert_eq!((given.cluster.as_str(), given.zone.as_deref()), ("c", Some("a")));
    assert_eq!(given.attributes, [("gpu".to_owned(), None)].into());
    assert_eq!(given.agent_token.as_deref(), Some("secret-enough"));
    assert!(!given.stop_tasks_on_exit && !given.ephemeral);
    let memory = config("up --ephemeral");
    assert!(
        memory.data_dir.is_none() && memory.ephemeral && memory.stop_tasks_on_exit,
        "nothing would know its tasks after the end"
    );
    let kept = config("up --ephemeral --data-dir /d");
    assert!(kept.data_dir.is_some() && kept.ephemeral && !kept.stop_tasks_on_exit);
}

#[test]
fn up_refuses_what_cannot_be() {
    for (line, says) in [
        ("up --ephemeral --listen 0.0.0.0:4566", "--listen 0.0.0.0:4566 is open to the network"),
        ("up --ephemeral --account-id 12", "--account-id 12 is not twelve digits"),
        ("up --ephemeral --cluster a.b", "--cluster a.b is no cluster name"),
    ] {
        let cli = parse(line).unwrap();
        let error = super::run(cli.target, cli.command).err().unwrap_or_else(|| panic!("{line} was taken"));
        assert!(error.to_string().starts_with(says), "{line}: {error}");
    }
}
