//! What a deploy and a rollback call besides what the resources that they change do.

use serde_json::json;

use crate::{
    aws::ecr::PUSH,
    engine::Permission,
    steps::{Stack, edge::bucket_label},
};

/// Each with the step that has what it is about.
pub(crate) fn permissions(stack: &Stack) -> Vec<(&'static str, Permission)> {
    let aws = &stack.aws;
    let name = |name: &str| stack.label("compute", name, 255).name;
    let cluster = name("cluster");
    let repository = aws.arn("ecr", &format!("repository/{}", name("repository")));
    let migration = aws.arn("ecs", &format!("task-definition/{}:*", name("migrate")));
    let tasks = aws.arn("ecs", &format!("task/{cluster}/*"));
    let in_cluster = || {
        let cluster = aws.arn("ecs", &format!("cluster/{cluster}"));
        json!({ "ArnEquals": { "ecs:cluster": cluster } })
    };
    let logs = ["api", "worker", "migrate"].map(|service| {
        let group = stack.label("observability", &format!("{service}-log-group"), 512).name;
        aws.arn("logs", &format!("log-group:{group}:*"))
    });
    let web = format!("arn:aws:s3:::{}", bucket_label(stack).name);
    vec![
        ("compute", Permission::anywhere(["ecr:GetAuthorizationToken"])),
        ("compute", Permission::on(PUSH, [repository])),
        ("compute", Permission::anywhere(["ecs:DescribeTaskDefinition"])),
        ("compute", Permission::anywhere(["ecs:ListTasks"]).only_if(in_cluster())),
        ("compute", Permission::on(["ecs:RunTask"], [migration]).only_if(in_cluster())),
        ("compute", Permission::on(["ecs:DescribeTasks", "ecs:StopTask"], [tasks])),
        ("compute", Permission::anywhere(["elasticloadbalancing:DescribeTargetHealth"])),
        ("observability", Permission::on(["logs:GetLogEvents"], logs)),
        ("edge", Permission::on(["s3:GetObject", "s3:PutObject"], [format!("{web}/*")])),
        ("edge", Permission::on(["s3:ListBucket"], [web])),
    ]
}
