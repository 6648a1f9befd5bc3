//! `beaufort apply`: makes what JSON files ask for through the public API, and changes only what differs. What is in the files is
//! [`document`]'s, what differs is [`compare`]'s; this file asks and tells.

mod compare;
mod document;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::document::{ACTIONS, Document, Kind, POLICY, title};
use super::client::{Client, Refused, Service as Api};
use super::ecs::{self, short};
use super::failure::Failure;
use super::screen::{self, Ink, Paint, parse_span, span};
use super::{ClusterOption, Target};
use crate::model::Millis;

const EXAMPLES: &str = r#"Examples:
  beaufort apply shop.json
  beaufort apply shop.json --wait --timeout 2m
  beaufort apply base.json prod.json --dry-run
  jq -n '{services: [{serviceName: "web", taskDefinition: "web", desiredCount: 2}]}' | beaufort apply -

A file is one JSON object in AWS's own shapes, each list as it is needed:
  {
    "taskDefinitions": [the input of RegisterTaskDefinition, ...],
    "services":        [the input of CreateService, ...],
    "scalableTargets": [the input of RegisterScalableTarget, ...],
    "scalingPolicies": [the input of PutScalingPolicy, ...],
    "alarms":          [the input of PutMetricAlarm, ...]
  }
ServiceNamespace and ScalableDimension are those of services unless they are given. An alarm's action may be "policy:NAME", or
"policy:service/CLUSTER/SERVICE:NAME" where a name is used twice: the scaling policy of that name in the same files.

Applied again, nothing changes: a task definition that is as its newest revision is not registered anew, and a service changes in what
differs only. Of a service that is there the members that UpdateService acts on are compared; others count when it is made. Members that a
service is not given, and the desired count of one that has a scalable target, stay as they are. What a file does not name is
left alone: nothing is ever deleted. A member that Beaufort does not know is refused before anything is done."#;

/// Make or change task definitions, services and their scaling, as JSON files ask.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ApplyArgs {
    /// The files, or - for standard input; read all before anything is done
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the files' services are steady
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_span)]
    pub timeout: Millis,
    /// Print what was done as JSON, at the end
    #[arg(long)]
    pub json: bool,
}

const MAX_FILE: u64 = 16 << 20;
const LOOK_AGAIN: Duration = Duration::from_millis(300);

pub async fn run(target: Target, args: ApplyArgs) -> anyhow::Result<ExitCode> {
    let document = read(&args)?;
    let mut applier =
        Applier { client: Client::new(&target.endpoint)?, args: &args, done: Vec::new(), policies: BTreeMap::new() };
    for kind in document::KINDS {
        for one in document.of(kind) {
            let what = || format!("{} {}", kind.name(), title(kind, one));
            let (outcome, changed) = match kind {
                Kind::Definition => applier.definition(one).await.with_context(what)?,
                Kind::Service => applier.service(&document, one).await.with_context(what)?,
                Kind::Target => applier.target(one).await.with_context(what)?,
                Kind::Policy => applier.policy(one).await.with_context(what)?,
                Kind::Alarm => applier.alarm(&document, one).await.with_context(what)?,
            };
            applier.tell(kind, one, outcome, changed)?;
        }
    }
    if args.wait {
        applier.wait(document.of(Kind::Service)).await?;
    }
    if args.json {
        screen::say_json(&json!({ "dryRun": args.dry_run, "done": applier.done }))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(args: &ApplyArgs) -> anyhow::Result<Document> {
    let mut document = Document::default();
    let wrong =
        |place: &str, why: String| Failure::new(format!("{place}: {why}"), "`beaufort apply --help` shows what a file holds");
    for file in &args.files {
        let name = file.display().to_string();
        let mut text = String::new();
        let cannot = || Failure::new(format!("{name} cannot be read"), "name a file, or - for standard input");
        let mut source: Box<dyn Read> = match name.as_str() {
            "-" => Box::new(std::io::stdin()),
            _ => Box::new(std::fs::File::open(file).with_context(cannot)?),
        };
        source.by_ref().take(MAX_FILE + 1).read_to_string(&mut text).with_context(cannot)?;
        if text.len() as u64 > MAX_FILE {
            return Err(wrong(&name, format!("it is larger than {} MiB", MAX_FILE >> 20)).into());
        }
        document.add(&text, &args.cluster.cluster).map_err(|why| wrong(&name, why))?;
    }
    document.check_whole().map_err(|why| wrong("the files", why))?;
    Ok(document)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Created,
    Updated,
    Unchanged,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Created => "created",
            Outcome::Updated => "updated",
            Outcome::Unchanged => "unchanged",
        }
    }
}

/// What became of one thing, and which of its members changed where that is known.
type Done = (Outcome, Vec<String>);

struct Applier<'a> {
    client: Client,
    args: &'a ApplyArgs,
    done: Vec<Value>,
    /// The ARNs of the files' policies, by title; absent while one is to be made yet.
    policies: BTreeMap<String, String>,
}

impl Applier<'_> {
    fn tell(&mut self, kind: Kind, one: &Value, outcome: Outcome, changed: Vec<String>) -> anyhow::Result<()> {
        let name = title(kind, one);
        if !self.args.json {
            let would = if self.args.dry_run && outcome != Outcome::Unchanged { "would be " } else { "" };
            let ink = if outcome == Outcome::Unchanged { Ink::Faint } else { Ink::Strong };
            let word = Paint::stdout().ink(ink, &format!("{would}{}", outcome.word()));
            let changed = if changed.is_empty() { String::new() } else { format!(" ({})", changed.join(", ")) };
            screen::say(&format!("{:<16} {} {word}{}\n", kind.name(), screen::printable(&name), screen::printable(&changed)))?;
        }
        self.done.push(json!({ "kind": kind.member(), "name": name, "outcome": outcome.word(), "changed": changed }));
        Ok(())
    }

    /// An operation that changes something; None in a dry run.
    async fn change(&self, service: Api, operation: &str, input: &Value) -> anyhow::Result<Option<Value>> {
        if self.args.dry_run {
            return Ok(None);
        }
        self.client.call(service, operation, input).await.map(Some)
    }

    /// The newest active revision of a family, or the one that a reference names.
    async fn described(&self, reference: &str) -> anyhow::Result<Option<Value>> {
        let input = json!({ "taskDefinition": reference, "include": ["TAGS"] });
        match self.client.call(Api::Ecs, "DescribeTaskDefinition", &input).await {
            Ok(mut found) => {
                let mut definition = found["taskDefinition"].take();
                definition["tags"] = found["tags"].take();
                Ok(Some(definition))
            }
            Err(error) if refused(&error, "Unable to describe task definition") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn definition(&self, wanted: &Value) -> anyhow::Result<Done> {
        let newest = self.described(wanted["family"].as_str().unwrap_or_default()).await?;
        if newest.as_ref().is_some_and(|newest| compare::same(&compare::registered(wanted), newest)) {
            return Ok((Outcome::Unchanged, Vec::new()));
        }
        let made = self.change(Api::Ecs, Kind::Definition.operation(), wanted).await?;
        let revision = made.and_then(|m| Some(short(m["taskDefinition"]["taskDefinitionArn"].as_str()?).to_owned()));
        Ok((if newest.is_some() { Outcome::Updated } else { Outcome::Created }, revision.into_iter().collect()))
    }

    /// The `family:revision` that a service's reference means now; None in a dry run when it would be registered first.
    async fn meant(&self, document: &Document, reference: &str) -> anyhow::Result<Option<String>> {
        let name = short(reference);
        let registered_first = self.args.dry_run
            && !name.contains(':')
            && self.done.iter().any(|d| d["kind"] == "taskDefinitions" && d["name"] == name && d["outcome"] != "unchanged");
        if registered_first {
            return Ok(None);
        }
        let found = self.described(reference).await?;
        let arn = found.as_ref().and_then(|f| f["taskDefinitionArn"].as_str());
        let in_files = || document.of(Kind::Definition).iter().any(|d| d["family"] == name);
        match arn {
            Some(arn) => Ok(Some(short(arn).to_owned())),
            None if in_files() => Ok(None),
            None => {
                let next = "put it into the file, under taskDefinitions";
                Err(Failure::new(format!("there is no task definition {reference}"), next).into())
            }
        }
    }

    async fn service(&self, document: &Document, wanted: &Value) -> anyhow::Result<Done> {
        let (cluster, name) = (&wanted["cluster"], &wanted["serviceName"]);
        let asked = json!({ "cluster": cluster, "services": [name], "include": ["TAGS"] });
        let mut found = self.client.call(Api::Ecs, "DescribeServices", &asked).await?;
        let found =
            found["services"].as_array_mut().and_then(|all| all.iter_mut().find(|s| s["status"] != "INACTIVE")).map(Value::take);
        let definition = self.meant(document, wanted["taskDefinition"].as_str().unwrap_or_default()).await?;
        let Some(is) = found else {
            self.change(Api::Ecs, Kind::Service.operation(), wanted).await?;
            return Ok((Outcome::Created, Vec::new()));
        };
        let resource = format!("service/{}", title(Kind::Service, wanted));
        let scaled = document.of(Kind::Target).iter().any(|t| t["ResourceId"] == resource)
            || self.found_target(&resource).await?.is_some();
        let mut changed = compare::service_changes(wanted, &is, definition.as_deref(), scaled)
            .map_err(|why| Failure::new(why, format!("aws ecs delete-service --force --cluster {cluster} --service {name}")))?;
        if !changed.is_empty() {
            let mut input = json!({ "cluster": cluster, "service": name });
            for member in &changed {
                input[*member] = wanted[*member].clone();
            }
            self.change(Api::Ecs, "UpdateService", &input).await?;
        }
        let tags = compare::missing_tags(wanted, &is);
        if !tags.is_empty() {
            self.change(Api::Ecs, "TagResource", &json!({ "resourceArn": is["serviceArn"], "tags": tags })).await?;
            changed.push("tags");
        }
        let outcome = if changed.is_empty() { Outcome::Unchanged } else { Outcome::Updated };
        Ok((outcome, changed.into_iter().map(str::to_owned).collect()))
    }

    async fn found_target(&self, resource: &str) -> anyhow::Result<Option<Value>> {
        let asked = json!({ "ServiceNamespace": "ecs", "ResourceIds": [resource] });
        self.first(Api::Scaling, "DescribeScalableTargets", &asked, "ScalableTargets").await
    }

    async fn first(&self, service: Api, operation: &str, asked: &Value, member: &str) -> anyhow::Result<Option<Value>> {
        let mut found = self.client.call(service, operation, asked).await?;
        Ok(found[member].as_array_mut().and_then(|all| all.first_mut()).map(Value::take))
    }

    /// Puts a thing whose operation replaces it as a whole.
    async fn put(
        &self,
        kind: Kind,
        service: Api,
        wanted: &Value,
        is: Option<&Value>,
        same: bool,
    ) -> anyhow::Result<(Done, Option<Value>)> {
        if same {
            return Ok(((Outcome::Unchanged, Vec::new()), None));
        }
        let made = self.change(service, kind.operation(), wanted).await?;
        Ok(((if is.is_some() { Outcome::Updated } else { Outcome::Created }, Vec::new()), made))
    }

    async fn target(&self, wanted: &Value) -> anyhow::Result<Done> {
        let is = self.found_target(wanted["ResourceId"].as_str().unwrap_or_default()).await?;
        // What is not given stays as it is, as RegisterScalableTarget has it.
        let same = is.as_ref().is_some_and(|is| compare::covers(is, wanted));
        Ok(self.put(Kind::Target, Api::Scaling, wanted, is.as_ref(), same).await?.0)
    }

    async fn policy(&mut self, wanted: &Value) -> anyhow::Result<Done> {
        let asked = json!({ "ServiceNamespace": wanted["ServiceNamespace"], "ResourceId": wanted["ResourceId"],
            "PolicyNames": [wanted["PolicyName"]] });
        let is = self.first(Api::Scaling, "DescribeScalingPolicies", &asked, "ScalingPolicies").await?;
        let same = is.as_ref().is_some_and(|is| compare::same(wanted, is));
        let (done, made) = self.put(Kind::Policy, Api::Scaling, wanted, is.as_ref(), same).await?;
        if let Some(arn) = made.as_ref().or(is.as_ref()).and_then(|p| p["PolicyARN"].as_str()) {
            self.policies.insert(title(Kind::Policy, wanted), arn.to_owned());
        }
        Ok(done)
    }

    async fn alarm(&self, document: &Document, wanted: &Value) -> anyhow::Result<Done> {
        let mut wanted = wanted.clone();
        for member in ACTIONS {
            for action in wanted.get_mut(member).and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(reference) = action.as_str().filter(|a| a.starts_with(POLICY)) else { continue };
                let at = document.policy(reference).map_err(anyhow::Error::msg)?;
                // In a dry run a policy may not be there yet; then the alarm that needs it differs anyhow.
                if let Some(arn) = self.policies.get(&title(Kind::Policy, &document.of(Kind::Policy)[at])) {
                    *action = Value::from(arn.as_str());
                }
            }
        }
        let asked = json!({ "AlarmNames": [wanted["AlarmName"]] });
        let is = self.first(Api::CloudWatch, "DescribeAlarms", &asked, "MetricAlarms").await?;
        let same = is.as_ref().is_some_and(|is| compare::same(&wanted, is));
        Ok(self.put(Kind::Alarm, Api::CloudWatch, &wanted, is.as_ref(), same).await?.0)
    }

    /// Until every service has as many tasks as it wants, all of its newest deployment.
    async fn wait(&self, services: &[Value]) -> anyhow::Result<()> {
        let (began, bound) = (Instant::now(), Duration::from_millis(self.args.timeout.unsigned_abs()));
        for wanted in services {
            let (cluster, name) =
                (wanted["cluster"].as_str().unwrap_or_default(), wanted["serviceName"].as_str().unwrap_or_default());
            loop {
                let service = ecs::service(&self.client, cluster, name).await?;
                let completed = service.deployments.first().is_some_and(|d| d.rollout_state == "COMPLETED");
                if service.is_stable() && completed {
                    break;
                }
                if began.elapsed() >= bound {
                    let (running, desired) = (service.running_count, service.desired_count);
                    let waited = span(began.elapsed().as_millis() as i64);
                    let what = format!(
                        "service {cluster}/{name} has {running} of {desired} tasks running after {waited} and is not steady"
                    );
                    return Err(Failure::new(what, format!("beaufort why service/{cluster}/{name}")).into());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            if !self.args.json {
                screen::say(&format!(
                    "{:<16} {cluster}/{name} steady after {}\n",
                    "service",
                    span(began.elapsed().as_millis() as i64)
                ))?;
            }
        }
        Ok(())
    }
}

/// Whether the server answered with an error that says so.
fn refused(error: &anyhow::Error, said: &str) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.message.contains(said))
}
