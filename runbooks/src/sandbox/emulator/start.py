"""Starts ministack as the sandbox needs it."""

import json
from pathlib import Path
from xml.sax.saxutils import escape

import ministack.core.iam_evaluator as evaluator
import ministack.services.ec2 as ec2
import ministack.services.ecs as ecs
import ministack.services.elasticache as elasticache
import ministack.services.iam as iam
import ministack.services.rds as rds
import ministack.services.secretsmanager as secretsmanager
from ministack import app
from ministack.core.responses import get_account_id


def listed(form, name):
    """The values of a list of the query protocol."""
    values = []
    while value := iam._p(form, f"{name}.member.{len(values) + 1}"):
        values.append(value)
    return values


def context(form):
    """The keys of the request that is simulated, lower case, as the evaluator looks them up."""
    keys = {}
    number = 1
    while key := iam._p(form, f"ContextEntries.member.{number}.ContextKeyName"):
        entry = f"ContextEntries.member.{number}"
        values = listed(form, f"{entry}.ContextKeyValues")
        is_list = iam._p(form, f"{entry}.ContextKeyType").endswith("List")
        keys[key.lower()] = values if is_list else (values or [None])[0]
        number += 1
    return keys


def simulate(form):
    """SimulatePrincipalPolicy for every action and resource, in the context that the call names."""
    source = iam._p(form, "PolicySourceArn")
    kind, _, path = source.split(":", 5)[-1].partition("/")
    name = path.rsplit("/", 1)[-1]
    known, policies_of = {
        "user": (iam._users, evaluator._gather_user_policies),
        "role": (iam._roles, evaluator._gather_role_policies),
    }.get(kind, ({}, None))
    if name not in known:
        return iam._error(404, "NoSuchEntity", f"The {kind} {name} cannot be found.", ns="iam")
    account = get_account_id()
    policies = policies_of(name, account)
    keys = context(form)
    members = ""
    for action in listed(form, "ActionNames"):
        for resource in listed(form, "ResourceArns") or ["*"]:
            request = evaluator.EvalContext(
                principal_arn=source,
                principal_type="User" if kind == "user" else "AssumedRole",
                principal_account=account,
                action=action,
                resource_arn=resource,
                region=iam.get_region(),
                service_context=keys,
            )
            decision = evaluator.evaluate(request, policies).decision
            decision = {"Allow": "allowed", "Deny": "explicitDeny"}.get(decision, "implicitDeny")
            members += (
                f"<member><EvalActionName>{escape(action)}</EvalActionName>"
                f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
                f"<EvalDecision>{decision}</EvalDecision>"
                "<MatchedStatements/><MissingContextValues/></member>"
            )
    return iam._xml(
        200,
        "SimulatePrincipalPolicyResponse",
        f"<SimulatePrincipalPolicyResult><EvaluationResults>{members}</EvaluationResults>"
        "<IsTruncated>false</IsTruncated></SimulatePrincipalPolicyResult>",
        ns="iam",
    )


def keep_tags(form, kind, resource, parse=ec2._parse_tag_specs):
    """Keeps the tags of a creation: of a flow log too, whose kind the emulator calls otherwise than
    a request does."""
    parse(form, "vpc-flow-log" if kind == "flow-log" else kind, resource)


def container_secrets(definition, resolve=ecs._resolve_container_secrets):
    """The values of a container's secrets. The emulator takes the current version, whichever
    `arn:json-key:version-stage:version-id` names."""
    values = {}
    for secret in definition.get("secrets", []):
        name, reference = secret["name"], secret["valueFrom"]
        # The ARN of a secret has seven parts.
        parts = reference.split(":")
        key, stage, version = (parts[7:] + ["", "", ""])[:3]
        if "secretsmanager" not in reference or not (stage or version):
            values.update(resolve({"secrets": [secret]}))
            continue
        value = secretsmanager.resolve_secret_string(
            ":".join(parts[:7]), stage or "AWSCURRENT", version or None
        )
        try:
            values[name] = str(json.loads(value)[key] if key else value)
        except (KeyError, TypeError, ValueError):
            value = None
        if value is None:
            raise ecs._SecretResolutionError(
                f"unable to retrieve secret {reference} for environment variable {name}"
            )
    return values


def make_current(secret, version, promote=secretsmanager._apply_current_promotion):
    """Keeps the versions that have no staging label any more. AWS does so while there are no more
    than a hundred; the emulator drops them at once."""
    versions = dict(secret["Versions"])
    promote(secret, version)
    for former, content in versions.items():
        secret["Versions"].setdefault(former, content)


# There while the account is in this process's memory only.
UNSAVED = Path(__file__).with_name("unsaved")


def save_all(services, save=app.save_all):
    """Writes the account at the end; only then is the next start its continuation."""
    save(services)
    UNSAVED.unlink(missing_ok=True)


if __name__ == "__main__":
    UNSAVED.touch()
    app.save_all = save_all
    rds._get_docker = elasticache._get_docker = lambda: None
    ec2._parse_tag_specs = keep_tags
    ecs._resolve_container_secrets = container_secrets
    secretsmanager._apply_current_promotion = make_current
    iam._IAM_HANDLERS["SimulatePrincipalPolicy"] = simulate
    app.main()
