//! The Cognito user pool.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_cognitoidentityprovider::{
    operation::get_user_pool_mfa_config::GetUserPoolMfaConfigOutput,
    types::{
        AccountRecoverySettingType, DeletionProtectionType, PasswordPolicyType,
        RecoveryOptionNameType, RecoveryOptionType, SoftwareTokenMfaConfigType, UserPoolMfaType,
        UserPoolPolicyType, UserPoolType, UsernameAttributeType, VerifiedAttributeType,
    },
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    aws::{Aws, Label, built, failed},
    engine::{
        Condition, Error, Live, Outputs, Permission, Resource, ResourceId,
        diff::{Field, touches},
    },
};

/// The pool: users sign in with their e-mail address, which Cognito verifies.
pub struct UserPool {
    /// Id, name and tags.
    pub label: Label,
    /// The clients.
    pub aws: Aws,
    /// Shortest password, characters.
    pub password_length: i32,
    /// Offer an authenticator app as second factor.
    pub optional_mfa: bool,
    /// Refuse deletion until it is switched off.
    pub deletion_protection: bool,
}

/// What others need of it.
#[derive(Debug, Clone)]
pub struct UserPoolOutput {
    /// `{region}_…`.
    pub id: String,
    /// `arn:aws:cognito-idp:…:userpool/…`.
    pub arn: String,
}

/// Days that a password set by an administrator is valid.
const TEMPORARY_PASSWORD_DAYS: i32 = 1;

#[async_trait]
impl Resource for UserPool {
    type Output = UserPoolOutput;

    fn id(&self) -> ResourceId {
        self.label.id.clone()
    }

    async fn find(
        &self,
        _: &Outputs,
        since: Instant,
    ) -> Result<Option<Live<UserPoolOutput>>, Error> {
        let pools = self.aws.cognitoidentityprovider.user_pools(since).await?;
        let Some(pool) = pools.iter().find(|pool| self.label.matches(&live_tags(pool))) else {
            return Ok(None);
        };
        let output = output(pool);
        let password = pool.policies().and_then(UserPoolPolicyType::password_policy);
        let mut verified: Vec<_> =
            pool.auto_verified_attributes().iter().map(VerifiedAttributeType::as_str).collect();
        verified.sort_unstable();
        let names: Vec<_> =
            pool.username_attributes().iter().map(UsernameAttributeType::as_str).collect();
        let recovery: Vec<_> = pool
            .account_recovery_setting()
            .map(AccountRecoverySettingType::recovery_mechanisms)
            .unwrap_or_default()
            .iter()
            .map(|option| option.name().as_str())
            .collect();
        Ok(Some(Live {
            properties: json!({
                "passwordPolicy": password.map(shown_password_policy),
                "autoVerifiedAttributes": verified,
                "usernameAttributes": names,
                "accountRecovery": recovery,
                "mfaConfiguration": pool.mfa_configuration().map_or("OFF", UserPoolMfaType::as_str),
                "softwareTokenMfa": self
                    .mfa_config(&output.id)
                    .await?
                    .software_token_mfa_configuration()
                    .is_some_and(SoftwareTokenMfaConfigType::enabled),
                "deletionProtection": pool.deletion_protection().map(DeletionProtectionType::as_str),
                "tags": live_tags(pool),
            }),
            condition: Condition::Ready,
            output,
        }))
    }

    fn desired(&self, _: &Outputs) -> Value {
        json!({
            "passwordPolicy": shown_password_policy(&self.password_policy()),
            "autoVerifiedAttributes": ["email"],
            "usernameAttributes": ["email"],
            "accountRecovery": ["verified_email"],
            "mfaConfiguration": self.mfa().as_str(),
            "softwareTokenMfa": self.optional_mfa,
            "deletionProtection": self.protection().as_str(),
            "tags": self.label.tags(),
        })
    }

    fn immutable(&self) -> &'static [(&'static str, &'static str)] {
        &[("usernameAttributes", "what users sign in with is fixed when a user pool is created")]
    }

    async fn create(&self, _: &Outputs) -> Result<Option<UserPoolOutput>, Error> {
        self.aws
            .cognitoidentityprovider
            .client
            .create_user_pool()
            .pool_name(&self.label.name)
            .policies(self.policies())
            .auto_verified_attributes(VerifiedAttributeType::Email)
            .username_attributes(UsernameAttributeType::Email)
            .account_recovery_setting(recovery()?)
            .deletion_protection(self.protection())
            .set_user_pool_tags(Some(self.label.tags.clone().into_iter().collect()))
            .send()
            .await
            .map_err(failed("cognito-idp:CreateUserPool"))?;
        // A factor by authenticator app can't be asked for here; the comparison that follows does.
        Ok(None)
    }

    async fn update(
        &self,
        live: &Live<UserPoolOutput>,
        fields: &[Field],
        _: &Outputs,
    ) -> Result<(), Error> {
        let mfa = |field: &Field| {
            touches(std::slice::from_ref(field), "mfaConfiguration")
                || touches(std::slice::from_ref(field), "softwareTokenMfa")
        };
        if fields.iter().any(|field| !mfa(field)) {
            self.write(&live.output.id, self.protection()).await?;
        }
        if fields.iter().any(mfa) {
            self.set_mfa(&live.output.id).await?;
        }
        Ok(())
    }

    async fn delete(&self, live: &Live<UserPoolOutput>) -> Result<(), Error> {
        if live.properties["deletionProtection"] == "ACTIVE" {
            self.write(&live.output.id, DeletionProtectionType::Inactive).await?;
        }
        let delete = self.aws.cognitoidentityprovider.client.delete_user_pool();
        let delete = delete.user_pool_id(&live.output.id);
        delete.send().await.map_err(failed("cognito-idp:DeleteUserPool"))?;
        Ok(())
    }

    fn permissions(&self) -> Vec<Permission> {
        // Their ids are generated.
        let pools = self.aws.arn("cognito-idp", "userpool/*");
        let changes = [
            "cognito-idp:DeleteUserPool",
            "cognito-idp:SetUserPoolMfaConfig",
            "cognito-idp:UpdateUserPool",
        ];
        vec![
            Permission::anywhere(["cognito-idp:ListUserPools"]),
            Permission::anywhere(["cognito-idp:CreateUserPool"])
                .only_if(self.label.request_tagged()),
            Permission::on(["cognito-idp:TagResource"], [pools.clone()])
                .only_if(self.label.request_tagged()),
            Permission::on(
                ["cognito-idp:DescribeUserPool", "cognito-idp:GetUserPoolMfaConfig"],
                [pools.clone()],
            ),
            Permission::on(changes, [pools]).only_if(self.label.resource_tagged()),
        ]
    }

    fn holds_data(&self) -> bool {
        true
    }
}

impl UserPool {
    fn password_policy(&self) -> PasswordPolicyType {
        PasswordPolicyType::builder()
            .minimum_length(self.password_length)
            .require_lowercase(true)
            .require_uppercase(true)
            .require_numbers(true)
            .require_symbols(false)
            .temporary_password_validity_days(TEMPORARY_PASSWORD_DAYS)
            .build()
    }

    fn policies(&self) -> UserPoolPolicyType {
        UserPoolPolicyType::builder().password_policy(self.password_policy()).build()
    }

    fn mfa(&self) -> UserPoolMfaType {
        if self.optional_mfa { UserPoolMfaType::Optional } else { UserPoolMfaType::Off }
    }

    fn protection(&self) -> DeletionProtectionType {
        if self.deletion_protection {
            DeletionProtectionType::Active
        } else {
            DeletionProtectionType::Inactive
        }
    }

    async fn mfa_config(&self, id: &str) -> Result<GetUserPoolMfaConfigOutput, Error> {
        let get = self.aws.cognitoidentityprovider.client.get_user_pool_mfa_config();
        let answer = get.user_pool_id(id).send().await;
        answer.map_err(failed("cognito-idp:GetUserPoolMfaConfig"))
    }

    /// Reads, changes, writes: `SetUserPoolMfaConfig` turns off the factors that it is not given
    /// (trap 5), a team's text messages, e-mails or passkeys.
    async fn set_mfa(&self, id: &str) -> Result<(), Error> {
        let now = self.mfa_config(id).await?;
        let token = SoftwareTokenMfaConfigType::builder().enabled(self.optional_mfa).build();
        self.aws
            .cognitoidentityprovider
            .client
            .set_user_pool_mfa_config()
            .user_pool_id(id)
            .set_sms_mfa_configuration(now.sms_mfa_configuration)
            .set_email_mfa_configuration(now.email_mfa_configuration)
            .set_web_authn_configuration(now.web_authn_configuration)
            .software_token_mfa_configuration(token)
            .mfa_configuration(self.mfa())
            .send()
            .await
            .map_err(failed("cognito-idp:SetUserPoolMfaConfig"))?;
        Ok(())
    }

    /// Reads, changes, writes: `UpdateUserPool` resets every setting that it is not given (trap 5),
    /// also those that are not ours, such as a team's own triggers or e-mail texts.
    async fn write(&self, id: &str, protection: DeletionProtectionType) -> Result<(), Error> {
        let client = &self.aws.cognitoidentityprovider.client;
        let pool = client
            .describe_user_pool()
            .user_pool_id(id)
            .send()
            .await
            .map_err(failed("cognito-idp:DescribeUserPool"))?
            .user_pool
            .unwrap_or_else(|| UserPoolType::builder().build());
        let mut tags = pool.user_pool_tags.unwrap_or_default();
        tags.extend(self.label.tags.clone());
        let mut policies = pool.policies.unwrap_or_else(|| self.policies());
        let mut password = self.password_policy();
        password.password_history_size =
            policies.password_policy.and_then(|now| now.password_history_size);
        policies.password_policy = Some(password);
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        client
            .update_user_pool()
            .user_pool_id(id)
            .policies(policies)
            .deletion_protection(protection)
            .auto_verified_attributes(VerifiedAttributeType::Email)
            .account_recovery_setting(recovery()?)
            .set_user_pool_tags(Some(tags))
            .set_lambda_config(pool.lambda_config)
            .set_sms_verification_message(text(pool.sms_verification_message))
            .set_email_verification_message(text(pool.email_verification_message))
            .set_email_verification_subject(text(pool.email_verification_subject))
            .set_verification_message_template(pool.verification_message_template)
            .set_sms_authentication_message(text(pool.sms_authentication_message))
            .set_user_attribute_update_settings(pool.user_attribute_update_settings)
            .set_mfa_configuration(pool.mfa_configuration)
            .set_device_configuration(pool.device_configuration)
            .set_email_configuration(pool.email_configuration)
            .set_sms_configuration(
                pool.sms_configuration.filter(|sms| !sms.sns_caller_arn().is_empty()),
            )
            .set_admin_create_user_config(pool.admin_create_user_config.map(|mut config| {
                // The older name of `temporaryPasswordValidityDays`; both together are refused.
                config.unused_account_validity_days = 0;
                config
            }))
            .set_user_pool_add_ons(pool.user_pool_add_ons)
            .set_user_pool_tier(pool.user_pool_tier)
            .set_key_configuration(pool.key_configuration)
            .set_issuer_configuration(pool.issuer_configuration)
            .set_acr_configuration(pool.acr_configuration)
            .send()
            .await
            .map_err(failed("cognito-idp:UpdateUserPool"))?;
        Ok(())
    }
}

fn output(pool: &UserPoolType) -> UserPoolOutput {
    UserPoolOutput {
        id: pool.id().unwrap_or_default().to_owned(),
        arn: pool.arn().unwrap_or_default().to_owned(),
    }
}

fn live_tags(pool: &UserPoolType) -> BTreeMap<String, String> {
    pool.user_pool_tags().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn shown_password_policy(policy: &PasswordPolicyType) -> Value {
    json!({
        "minimumLength": policy.minimum_length(),
        "requireLowercase": policy.require_lowercase(),
        "requireUppercase": policy.require_uppercase(),
        "requireNumbers": policy.require_numbers(),
        "requireSymbols": policy.require_symbols(),
        "temporaryPasswordValidityDays": policy.temporary_password_validity_days(),
    })
}

/// A forgotten password is reset by e-mail only: a text message can be stolen with the number.
fn recovery() -> Result<AccountRecoverySettingType, Error> {
    let by_email = RecoveryOptionType::builder()
        .name(RecoveryOptionNameType::VerifiedEmail)
        .priority(1)
        .build()
        .map_err(built("cognito-idp:CreateUserPool"))?;
    Ok(AccountRecoverySettingType::builder().recovery_mechanisms(by_email).build())
}
