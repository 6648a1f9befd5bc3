//! STS, as far as tools ask who they are before they do anything (Terraform, CDK): everyone is the account's root.

use super::{App, Cx};
use crate::shapes;
use crate::wire::fault::Fault;
use crate::wire::service::Service;

pub fn service() -> Service<App> {
    Service::new("sts")
        .query("2011-06-15", "https://sts.amazonaws.com/doc/2011-06-15/")
        .op("GetCallerIdentity", get_caller_identity)
}

shapes! { "PascalCase";
    input GetCallerIdentityInput {}
    output GetCallerIdentityOutput { arn: String, user_id: String, account: String }
}

async fn get_caller_identity(cx: Cx, _: GetCallerIdentityInput) -> Result<GetCallerIdentityOutput, Fault> {
    let account = &cx.app.home.account;
    Ok(GetCallerIdentityOutput {
        arn: format!("arn:aws:iam::{account}:root"),
        user_id: account.clone(),
        account: account.clone(),
    })
}
