//! Application Auto Scaling's shapes, exactly with AWS's names: only what is supported.

use std::collections::BTreeMap;

use crate::model::metric::Statistic as ModelStatistic;
use crate::model::scaling::{AdjustmentType as ModelAdjustment, Aggregation};
use crate::shapes;
use crate::wire::types::Timestamp;

shapes! { "PascalCase";
    shape SuspendedState {
        dynamic_scaling_in_suspended: Option<bool>, dynamic_scaling_out_suspended: Option<bool>,
        scheduled_scaling_suspended: Option<bool>,
    }
    input RegisterScalableTargetInput {
        service_namespace: String, resource_id: String, scalable_dimension: String, min_capacity: Option<i32>,
        max_capacity: Option<i32>, suspended_state: Option<SuspendedState>, tags: Option<BTreeMap<String, String>>,
    }
    output RegisterScalableTargetOutput { #[serde(rename = "ScalableTargetARN")] scalable_target_arn: String }
    input TargetInput { service_namespace: String, resource_id: String, scalable_dimension: String }
    input DescribeScalableTargetsInput {
        service_namespace: String, resource_ids: Option<Vec<String>>, scalable_dimension: Option<String>,
        max_results: Option<i32>, next_token: Option<String>,
    }
    output ScalableTarget {
        service_namespace: String, resource_id: String, scalable_dimension: String, min_capacity: u32, max_capacity: u32,
        #[serde(rename = "RoleARN")] role_arn: String, creation_time: Timestamp, suspended_state: SuspendedState,
        #[serde(rename = "ScalableTargetARN")] scalable_target_arn: String,
    }
    output DescribeScalableTargetsOutput { scalable_targets: Vec<ScalableTarget>, next_token: Option<String> }

    shape MetricDimension { name: String, value: String }
    input Given {}
    shape PredefinedMetricSpecification { predefined_metric_type: String, resource_label: Option<String> }
    input CustomizedMetricSpecification {
        metric_name: Option<String>, namespace: Option<String>, dimensions: Option<Vec<MetricDimension>>,
        statistic: Option<Statistic>, unit: Option<String>, metrics: Option<Vec<Given>>,
    }
    input TargetTrackingInput {
        target_value: f64, predefined_metric_specification: Option<PredefinedMetricSpecification>,
        customized_metric_specification: Option<CustomizedMetricSpecification>, scale_out_cooldown: Option<i32>,
        scale_in_cooldown: Option<i32>, disable_scale_in: Option<bool>,
    }
    shape StepAdjustment {
        metric_interval_lower_bound: Option<f64>, metric_interval_upper_bound: Option<f64>, scaling_adjustment: i64,
    }
    shape StepScaling {
        adjustment_type: Option<AdjustmentType>, step_adjustments: Option<Vec<StepAdjustment>>,
        min_adjustment_magnitude: Option<i32>, cooldown: Option<i32>, metric_aggregation_type: Option<AggregationType>,
    }
    input PutScalingPolicyInput {
        policy_name: String, service_namespace: String, resource_id: String, scalable_dimension: String,
        policy_type: Option<PolicyType>,
        #[serde(rename = "StepScalingPolicyConfiguration")] step: Option<StepScaling>,
        #[serde(rename = "TargetTrackingScalingPolicyConfiguration")] tracking: Option<TargetTrackingInput>,
        #[serde(rename = "PredictiveScalingPolicyConfiguration")] predictive: Option<Given>,
    }
    output Alarm { alarm_name: String, #[serde(rename = "AlarmARN")] alarm_arn: String }
    output PutScalingPolicyOutput { #[serde(rename = "PolicyARN")] policy_arn: String, alarms: Vec<Alarm> }
    input DeleteScalingPolicyInput {
        policy_name: String, service_namespace: String, resource_id: String, scalable_dimension: String,
    }
    input DescribeScalingPoliciesInput {
        policy_names: Option<Vec<String>>, service_namespace: String, resource_id: Option<String>,
        scalable_dimension: Option<String>, max_results: Option<i32>, next_token: Option<String>,
    }
    output CustomizedMetric {
        metric_name: String, namespace: String, dimensions: Vec<MetricDimension>, statistic: String, unit: Option<String>,
    }
    output TargetTracking {
        target_value: f64, predefined_metric_specification: Option<PredefinedMetricSpecification>,
        customized_metric_specification: Option<CustomizedMetric>, scale_out_cooldown: Option<i64>,
        scale_in_cooldown: Option<i64>, disable_scale_in: bool,
    }
    output ScalingPolicy {
        #[serde(rename = "PolicyARN")] policy_arn: String, policy_name: String, service_namespace: String, resource_id: String,
        scalable_dimension: String, policy_type: PolicyType,
        #[serde(rename = "StepScalingPolicyConfiguration")] step: Option<StepScaling>,
        #[serde(rename = "TargetTrackingScalingPolicyConfiguration")] tracking: Option<TargetTracking>,
        alarms: Vec<Alarm>, creation_time: Timestamp,
    }
    output DescribeScalingPoliciesOutput { scaling_policies: Vec<ScalingPolicy>, next_token: Option<String> }

    input DescribeScalingActivitiesInput {
        service_namespace: String, resource_id: Option<String>, scalable_dimension: Option<String>, max_results: Option<i32>,
        next_token: Option<String>, include_not_scaled_activities: Option<bool>,
    }
    output NotScaledReason {
        code: String, max_capacity: Option<u32>, min_capacity: Option<u32>, current_capacity: Option<u32>,
    }
    output ScalingActivity {
        activity_id: String, service_namespace: String, resource_id: String, scalable_dimension: String, description: String,
        cause: String, start_time: Timestamp, end_time: Option<Timestamp>, status_code: String, status_message: Option<String>,
        not_scaled_reasons: Option<Vec<NotScaledReason>>,
    }
    output DescribeScalingActivitiesOutput { scaling_activities: Vec<ScalingActivity>, next_token: Option<String> }

    output Nothing {}
    input TagResourceInput { #[serde(rename = "ResourceARN")] resource_arn: String, tags: BTreeMap<String, String> }
    input UntagResourceInput { #[serde(rename = "ResourceARN")] resource_arn: String, tag_keys: Vec<String> }
    input ListTagsForResourceInput { #[serde(rename = "ResourceARN")] resource_arn: String }
    output ListTagsForResourceOutput { tags: BTreeMap<String, String> }

    values PolicyType { StepScaling, TargetTrackingScaling, PredictiveScaling }
    values AdjustmentType { ChangeInCapacity, PercentChangeInCapacity, ExactCapacity }
    values AggregationType { Average, Minimum, Maximum }
    values Statistic { Average, Minimum, Maximum, SampleCount, Sum }
}

impl From<Statistic> for ModelStatistic {
    fn from(statistic: Statistic) -> ModelStatistic {
        match statistic {
            Statistic::Average => ModelStatistic::Average,
            Statistic::Minimum => ModelStatistic::Minimum,
            Statistic::Maximum => ModelStatistic::Maximum,
            Statistic::SampleCount => ModelStatistic::SampleCount,
            Statistic::Sum => ModelStatistic::Sum,
        }
    }
}

macro_rules! same_names {
    ($($wire:ident and $model:ident: $($name:ident)*;)*) => { $(
        impl From<$wire> for $model {
            fn from(value: $wire) -> $model {
                match value { $($wire::$name => $model::$name),* }
            }
        }
        impl From<$model> for $wire {
            fn from(value: $model) -> $wire {
                match value { $($model::$name => $wire::$name),* }
            }
        }
    )* };
}

same_names! {
    AdjustmentType and ModelAdjustment: ChangeInCapacity PercentChangeInCapacity ExactCapacity;
    AggregationType and Aggregation: Average Minimum Maximum;
}
