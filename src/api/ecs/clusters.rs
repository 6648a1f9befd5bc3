//! Clusters.

use std::sync::Arc;

use super::errors::{CONTAINS_INSTANCES, CONTAINS_SERVICES, CONTAINS_TASKS, invalid};
use super::page::page;
use super::shapes::{Failure, Given, NameValue, arn_or, missing, says};
use super::{ask, update as change};
use crate::api::{App, Cx};
use crate::model::ClusterName;
use crate::model::arn::{Home, short_name};
use crate::model::cluster::{Cluster, ClusterStatus};
use crate::model::service::ServiceStatus;
use crate::model::tag::Tag;
use crate::model::task::LaunchType;
use crate::shapes;
use crate::store::{State, Tx};
use crate::wire::fault::Fault;

shapes! { "camelCase";
    shape ClusterSetting { name: Option<SettingName>, value: Option<String> }
    values SettingName { #[serde(rename = "containerInsights")] ContainerInsights }
    values ClusterField {
        #[serde(rename = "ATTACHMENTS")] Attachments, #[serde(rename = "CONFIGURATIONS")] Configurations,
        #[serde(rename = "SETTINGS")] Settings, #[serde(rename = "STATISTICS")] Statistics, #[serde(rename = "TAGS")] Tags,
    }
    input CreateClusterInput {
        cluster_name: Option<String>, tags: Option<Vec<Tag>>, settings: Option<Vec<ClusterSetting>>, configuration: Given,
        capacity_providers: Given, default_capacity_provider_strategy: Given, service_connect_defaults: Given,
    }
    input DescribeClustersInput { clusters: Option<Vec<String>>, include: Option<Vec<ClusterField>> }
    input ListClustersInput { next_token: Option<String>, max_results: Option<i32> }
    input DeleteClusterInput { cluster: String }
    input UpdateClusterInput {
        cluster: String, settings: Option<Vec<ClusterSetting>>, configuration: Given, service_connect_defaults: Given,
    }
    input UpdateClusterSettingsInput { cluster: String, settings: Vec<ClusterSetting> }
    output ClusterOutput { cluster: ClusterShape }
    output DescribeClustersOutput { clusters: Vec<ClusterShape>, failures: Vec<Failure> }
    output ListClustersOutput { cluster_arns: Vec<String>, next_token: Option<String> }
    output ClusterShape {
        cluster_arn: String, cluster_name: String, status: &'static str, registered_container_instances_count: u32,
        running_tasks_count: u32, pending_tasks_count: u32, active_services_count: u32, statistics: Vec<NameValue>,
        tags: Vec<Tag>, settings: Vec<ClusterSetting>, capacity_providers: Vec<String>,
        default_capacity_provider_strategy: Vec<NameValue>,
    }
}

pub async fn create(cx: Cx, input: CreateClusterInput) -> Result<ClusterOutput, Fault> {
    let name = input.cluster_name.unwrap_or_else(|| ask::DEFAULT_CLUSTER.to_owned());
    ask::check_name("The cluster name", &name)?;
    let tags = input.tags.unwrap_or_default();
    ask::check_tags(&tags)?;
    let settings = settings(input.settings.as_deref().unwrap_or_default())?;
    cx.app.gaps.given(&[
        ("cluster.configuration", says(&input.configuration)),
        ("cluster.capacityProviders", says(&input.capacity_providers)),
        ("cluster.defaultCapacityProviderStrategy", says(&input.default_capacity_provider_strategy)),
        ("cluster.serviceConnectDefaults", says(&input.service_connect_defaults)),
        ("cluster.settings.containerInsights", !settings.is_empty()),
    ]);
    change(&cx, "CreateCluster", move |tx, app| {
        let name = ClusterName::from(name);
        // Creating a cluster that is there answers it as it is.
        let existing = tx.state().clusters.get(&name).filter(|c| c.status == ClusterStatus::Active).cloned();
        let cluster = existing.unwrap_or_else(|| {
            let made = Cluster { name, status: ClusterStatus::Active, tags, settings, created_at: tx.now };
            tx.put(made.clone());
            Arc::new(made)
        });
        Ok(ClusterOutput { cluster: shape(tx.state(), &app.home, &cluster, Shown::ALL) })
    })
    .await
}

pub async fn describe(cx: Cx, input: DescribeClustersInput) -> Result<DescribeClustersOutput, Fault> {
    let asked = input.clusters.filter(|c| !c.is_empty()).unwrap_or_else(|| vec![ask::DEFAULT_CLUSTER.to_owned()]);
    ask::check_batch("Clusters", asked.len(), 100)?;
    let include = input.include.unwrap_or_default();
    let shown = Shown {
        tags: include.contains(&ClusterField::Tags),
        settings: include.contains(&ClusterField::Settings),
        statistics: include.contains(&ClusterField::Statistics),
    };
    let state = cx.app.store.snapshot();
    let mut output = DescribeClustersOutput { clusters: Vec::new(), failures: Vec::new() };
    for reference in asked {
        match state.clusters.get(short_name(&reference)) {
            Some(cluster) => output.clusters.push(shape(&state, &cx.app.home, cluster, shown)),
            None => output.failures.push(missing(arn_or(&reference, |name| cx.app.home.cluster(&name.into())))),
        }
    }
    Ok(output)
}

pub async fn list(cx: Cx, input: ListClustersInput) -> Result<ListClustersOutput, Fault> {
    let state = cx.app.store.snapshot();
    let active = state.clusters.values().filter(|c| c.status == ClusterStatus::Active);
    let (cluster_arns, next_token) =
        page(input.next_token, input.max_results, 100)?.of(active.map(|c| (c.name.as_str(), cx.app.home.cluster(&c.name))));
    Ok(ListClustersOutput { cluster_arns, next_token })
}

pub async fn delete(cx: Cx, input: DeleteClusterInput) -> Result<ClusterOutput, Fault> {
    change(&cx, "DeleteCluster", move |tx, app| {
        let cluster = ask::cluster(tx.state(), Some(&input.cluster))?.clone();
        check_empty(tx.state(), &cluster.name)?;
        put(tx, app, Cluster { status: ClusterStatus::Inactive, ..(*cluster).clone() })
    })
    .await
}

fn check_empty(state: &State, name: &ClusterName) -> Result<(), Fault> {
    let counts = state.cluster_counts(name);
    if registered(state, name) > 0 {
        let text = "The Cluster cannot be deleted while Container Instances are active or draining.";
        return Err(Fault::new(&CONTAINS_INSTANCES, text));
    }
    if state.services_of_cluster(name).any(|s| s.status != ServiceStatus::Inactive) {
        return Err(Fault::new(&CONTAINS_SERVICES, "The Cluster cannot be deleted while Services are active."));
    }
    if counts.running + counts.pending + counts.stopping > 0 {
        return Err(Fault::new(&CONTAINS_TASKS, "The Cluster cannot be deleted while Tasks are active."));
    }
    Ok(())
}

pub async fn update(cx: Cx, input: UpdateClusterInput) -> Result<ClusterOutput, Fault> {
    cx.app.gaps.given(&[
        ("cluster.configuration", says(&input.configuration)),
        ("cluster.serviceConnectDefaults", says(&input.service_connect_defaults)),
    ]);
    put_settings(cx, "UpdateCluster", input.cluster, input.settings).await
}

pub async fn update_settings(cx: Cx, input: UpdateClusterSettingsInput) -> Result<ClusterOutput, Fault> {
    put_settings(cx, "UpdateClusterSettings", input.cluster, Some(input.settings)).await
}

async fn put_settings(
    cx: Cx,
    operation: &str,
    reference: String,
    given: Option<Vec<ClusterSetting>>,
) -> Result<ClusterOutput, Fault> {
    let given = given.map(|s| settings(&s)).transpose()?;
    cx.app.gaps.given(&[("cluster.settings.containerInsights", given.as_ref().is_some_and(|s| !s.is_empty()))]);
    change(&cx, operation, move |tx, app| {
        let cluster = ask::cluster(tx.state(), Some(&reference))?.clone();
        let settings = given.unwrap_or_else(|| cluster.settings.clone());
        put(tx, app, Cluster { settings, ..(*cluster).clone() })
    })
    .await
}

fn put(tx: &mut Tx, app: &App, cluster: Cluster) -> Result<ClusterOutput, Fault> {
    tx.put(cluster.clone());
    Ok(ClusterOutput { cluster: shape(tx.state(), &app.home, &cluster, Shown::ALL) })
}

/// ClusterSetting: the one name is containerInsights, "supported values are enhanced, enabled, and disabled".
fn settings(given: &[ClusterSetting]) -> Result<Vec<(String, String)>, Fault> {
    let mut settings = Vec::new();
    for setting in given {
        match (setting.name, setting.value.as_deref()) {
            (Some(SettingName::ContainerInsights), Some(value @ ("enabled" | "disabled" | "enhanced"))) => {
                settings = vec![("containerInsights".to_owned(), value.to_owned())];
            }
            _ => {
                return Err(invalid("The setting containerInsights must have the value enabled, enhanced or disabled."));
            }
        }
    }
    Ok(settings)
}

#[derive(Clone, Copy)]
struct Shown {
    tags: bool,
    settings: bool,
    statistics: bool,
}

impl Shown {
    const ALL: Shown = Shown { tags: true, settings: true, statistics: false };
}

fn registered(state: &State, name: &ClusterName) -> u32 {
    state.capacity(name).instances
}

fn shape(state: &State, home: &Home, cluster: &Cluster, shown: Shown) -> ClusterShape {
    let counts = state.cluster_counts(&cluster.name);
    let insights = cluster.settings.first().map_or("disabled", |(_, value)| value);
    ClusterShape {
        cluster_arn: home.cluster(&cluster.name),
        cluster_name: cluster.name.to_string(),
        status: match cluster.status {
            ClusterStatus::Active => "ACTIVE",
            ClusterStatus::Inactive => "INACTIVE",
        },
        registered_container_instances_count: registered(state, &cluster.name),
        running_tasks_count: counts.running,
        pending_tasks_count: counts.pending,
        active_services_count: state.services_of_cluster(&cluster.name).filter(|s| s.status == ServiceStatus::Active).count()
            as u32,
        statistics: if shown.statistics { statistics(state, &cluster.name) } else { Vec::new() },
        tags: if shown.tags { cluster.tags.clone() } else { Vec::new() },
        settings: if shown.settings {
            vec![ClusterSetting { name: Some(SettingName::ContainerInsights), value: Some(insights.to_owned()) }]
        } else {
            Vec::new()
        },
        capacity_providers: Vec::new(),
        default_capacity_provider_strategy: Vec::new(),
    }
}

/// The names that AWS documents at Cluster, "statistics", and those of EXTERNAL, in the same order.
fn statistics(state: &State, name: &ClusterName) -> Vec<NameValue> {
    let kinds = [(LaunchType::Ec2, "EC2"), (LaunchType::Fargate, "Fargate"), (LaunchType::External, "External")];
    let tasks = |kind: LaunchType| state.cluster_counts_of(name, kind);
    let services = |kind: LaunchType, status: ServiceStatus| {
        state.services_of_cluster(name).filter(|s| s.launch_type == kind && s.status == status).count()
    };
    let mut all = Vec::new();
    let mut say = |name: String, count: usize| all.push(NameValue { name, value: count.to_string() });
    for (kind, word) in kinds {
        say(format!("running{word}TasksCount"), tasks(kind).running as usize);
        say(format!("pending{word}TasksCount"), tasks(kind).pending as usize);
        say(format!("active{word}ServiceCount"), services(kind, ServiceStatus::Active));
        say(format!("draining{word}ServiceCount"), services(kind, ServiceStatus::Draining));
    }
    all
}
