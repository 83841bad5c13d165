//! Error codes of AWS's services that a person meets, each with what mostly leads to it here.

use crate::engine::Fault;

const fn code(code: &'static str, cause: &'static str, mend: &'static str) -> Fault {
    Fault { code, cause, mend }
}

/// Where two services say the same with two codes, both are there. What bme does about a code follows
/// from its class, see [`class`](super::class).
pub(crate) const CODES: &[Fault] = &[
    code("AccessDenied", NOT_ALLOWED, GRANT),
    code("AccessDeniedException", NOT_ALLOWED, GRANT),
    code("UnauthorizedOperation", NOT_ALLOWED, GRANT),
    code("InvalidClientTokenId", UNKNOWN_KEY, LOG_IN),
    code("UnrecognizedClientException", UNKNOWN_KEY, LOG_IN),
    code("AuthFailure", UNKNOWN_KEY, LOG_IN),
    code(
        "SignatureDoesNotMatch",
        "the secret access key is not that of the key id, or this machine's clock is wrong by more \
         than five minutes",
        "set the right AWS_SECRET_ACCESS_KEY, and look at the clock",
    ),
    code(
        "OptInRequired",
        "the account has not signed up for the service, or has not turned on the region",
        "turn the region on in the account's settings, or set another `aws.region`",
    ),
    code(
        "DependencyViolation",
        "something still uses what is to be deleted: mostly the network interface of a load \
         balancer or a proxy, which outlives its owner by minutes",
        "wait and run the command again; if it stays, look in the EC2 console for network \
         interfaces in the subnet or security group that are not bme's",
    ),
    code(
        "DeleteConflict",
        "the role or policy that is to be deleted still has something attached that bme did not \
         attach",
        "detach it in the IAM console, then run the command again",
    ),
    code(
        "BucketNotEmpty",
        "objects or versions were written while the bucket was being emptied",
        "stop whoever writes, then run the command again",
    ),
    code(
        "DistributionNotDisabled",
        "a distribution can only be deleted once it is disabled everywhere, which takes minutes",
        "run the command again",
    ),
    code(
        "InvalidDBInstanceState",
        "the database is being changed or backed up and takes no other change meanwhile",
        "run the command again when it is `available`",
    ),
    code(
        "InvalidDBClusterStateFault",
        "the database's cluster is being changed or backed up and takes no other change meanwhile, or \
         is to be deleted with instances that are not bme's",
        "run the command again when it is `available`; delete such instances in the RDS console",
    ),
    code(
        "InvalidReplicationGroupState",
        "the cache is being changed or backed up and takes no other change meanwhile",
        "run the command again when it is `available`",
    ),
    code(
        "InsufficientDBInstanceCapacity",
        "AWS has no room for this instance class in these zones at the moment",
        "wait, or set another `database.instance_class`",
    ),
    code(
        "InsufficientCacheClusterCapacity",
        "AWS has no room for this node type in these zones at the moment",
        "wait, or set another `cache.node_type`",
    ),
    code(
        "InvalidParameterValue",
        "the service takes this value from nobody, or not in this region or with the other values",
        "read the message: it names the value; change it in the environment file",
    ),
    code(
        "InvalidParameterCombination",
        "two values of the environment file do not go together, for instance an instance class and \
         a version",
        "read the message: it names them; change one in the environment file",
    ),
    code("VpcLimitExceeded", QUOTA, "delete a VPC that nobody needs, or ask for a higher quota"),
    code(
        "AddressLimitExceeded",
        "the account has five Elastic IP addresses in a region by default, and each NAT gateway \
         takes one",
        "release one that nobody needs, set `network.nat = \"single\"`, or ask for a higher quota",
    ),
    code("NatGatewayLimitExceeded", QUOTA, "set `network.nat = \"single\"`, or ask for more"),
    code("InstanceQuotaExceeded", QUOTA, "ask for a higher quota in the Service Quotas console"),
    code("StorageQuotaExceeded", QUOTA, "ask for a higher quota in the Service Quotas console"),
    code("LimitExceeded", QUOTA, "ask for a higher quota in the Service Quotas console"),
    code("LimitExceededException", QUOTA, "ask for a higher quota in the Service Quotas console"),
    code(
        "BucketAlreadyExists",
        "the name of a bucket is taken by another account: names are unique over all of AWS",
        "give the environment another `name`",
    ),
    code(
        "EntityAlreadyExists",
        "a role or provider of this name exists; an account has one identity provider for GitHub",
        "run the command again: what is ours is gone on with, what is not is named",
    ),
    code(
        "MalformedPolicyDocument",
        "a policy names a role that IAM does not see yet, or is not valid",
        "run the command again; if it stays, it is a mistake of bme's",
    ),
    code(
        "WAFUnavailableEntityException",
        "the web ACL or the load balancer was just made and is not seen everywhere yet",
        "run the command again after a minute",
    ),
    code(
        "CannotPullContainerError",
        "a task can't fetch its image: the image is gone from the repository, or the private \
         subnets have no way to it",
        "see that `network.nat` is not \"none\" without endpoints, and deploy the tag again",
    ),
    code(
        "NoSuchHostedZone",
        "the account has no Route 53 zone of this id",
        "set `edge.hosted_zone_id` to one that `aws route53 list-hosted-zones` prints",
    ),
    code(
        "InvalidChangeBatch",
        "Route 53 takes no such record in this zone: mostly the domain does not end in the zone's name, \
         or the name has a record of another kind",
        "compare `edge.domain` and `compute.domain` with the zone of `edge.hosted_zone_id`",
    ),
    code(
        "InvalidStructureException",
        "CodePipeline does not take the pipeline: mostly the connection is not there, or of another \
         account",
        "compare `delivery.pipeline.connection_arn` with what `aws codeconnections \
         list-connections` prints",
    ),
    code("ThrottlingException", BUSY, FEWER),
    code("RequestLimitExceeded", BUSY, FEWER),
    code(
        "InternalFailure",
        "the service itself failed",
        "run the command again; with the request id AWS's support can say more",
    ),
];

const NOT_ALLOWED: &str = "the identity may not do this: its own policies, a permission boundary, or a \
                           policy of the organisation forbid the operation that the error names";
const GRANT: &str = "let the operation in with a policy, or use another AWS_PROFILE";
const UNKNOWN_KEY: &str = "AWS does not know the access key";
const LOG_IN: &str = "run `aws sso login`, or set another AWS_PROFILE";
const QUOTA: &str = "the account is at a quota of this region";
const BUSY: &str = "the account makes more calls than the service allows, other programs included";
const FEWER: &str = "run the command again with a lower `--parallelism`";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{aws::class, engine::Class};

    #[test]
    fn each_code_is_there_once_and_has_the_class_that_is_told() {
        let codes: BTreeSet<_> = CODES.iter().map(|fault| fault.code).collect();
        assert_eq!(codes.len(), CODES.len());
        for (code, wanted) in [
            ("DependencyViolation", Class::InUse),
            ("ThrottlingException", Class::Throttled),
            ("AccessDenied", Class::Fatal),
            ("VpcLimitExceeded", Class::Fatal),
            ("http-503", Class::Unknown),
        ] {
            assert_eq!(class(code), wanted, "{code}");
        }
    }
}
