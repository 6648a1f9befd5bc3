//! CloudWatch Observability Access Manager, as far as Grafana's CloudWatch data source asks before it shows anything: which sinks other
//! accounts send their metrics to. This installation is one account, and nobody sends it any: there are none.

use super::{App, Cx};
use crate::shapes;
use crate::wire::fault::{Code, Fault};
use crate::wire::service::Service;

const INVALID_PARAMETER: Code = Code::new("InvalidParameterException", 400);

pub fn service() -> Service<App> {
    Service::new("oam").refuse(|e| Fault::new(&INVALID_PARAMETER, e.to_string())).rest("ListSinks", "POST /ListSinks", list_sinks)
}

shapes! { "PascalCase";
    input ListSinksInput { max_results: Option<i32>, next_token: Option<String> }
    output Sink { arn: String, id: String, name: String }
    output ListSinksOutput { items: Vec<Sink>, next_token: Option<String> }
}

async fn list_sinks(_: Cx, input: ListSinksInput) -> Result<ListSinksOutput, Fault> {
    if let Some(wrong) = input.max_results.filter(|n| !(1..=100).contains(n)) {
        return Err(Fault::new(&INVALID_PARAMETER, format!("MaxResults is {wrong}: a number from 1 to 100")));
    }
    if input.next_token.is_some() {
        return Err(Fault::new(&INVALID_PARAMETER, "NextToken was given out by no answer: all sinks fit into one"));
    }
    Ok(ListSinksOutput { items: Vec::new(), next_token: None })
}
