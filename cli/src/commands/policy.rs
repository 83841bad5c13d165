use bme_runbooks::{
    policy::{INLINE_POLICIES, MANAGED_POLICY, characters, ci, operator},
    session::Selection,
};
use clap::ValueEnum;

use super::{Context, Steps};
use crate::exit::{Exit, Stop};

/// Print the IAM policy that an environment needs, without asking AWS
///
/// What is called on which resources, and no more, as a policy document for `aws iam
/// create-policy`. A run looks at every step: whoever provisions needs the policies of all steps,
/// in one or in several documents.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    steps: Steps,
    /// Whom the policy is for
    #[arg(long = "for", value_enum, value_name = "WHO", default_value_t = Who::Operator)]
    who: Who,
}

#[derive(Clone, Copy, ValueEnum)]
enum Who {
    /// Whoever provisions, deploys, rolls back and destroys
    Operator,
    /// The pipeline that deploys: what the role of step 10 has
    Ci,
}

pub(crate) fn run(args: Args, context: &Context) -> Result<Exit, Stop> {
    let (_, environment) = context.environment()?;
    let selection = Selection::from(args.steps);
    let whole = selection.is_whole();
    let document = match args.who {
        Who::Operator => operator(&environment, &selection),
        Who::Ci if whole => ci(&environment),
        Who::Ci => {
            return Err(Stop::usage(
                "the pipeline's policy is one for all steps",
                "leave out `--step`, `--from` and `--until`",
            ));
        }
    };
    let output = context.output;
    output.document(&document);
    let length = characters(&document);
    output.note(&format!(
        "{length} characters without white space; a managed policy takes {MANAGED_POLICY}, the \
         inline policies of a role {INLINE_POLICIES} together"
    ));
    if length > MANAGED_POLICY {
        output.hint(match args.who {
            Who::Operator if whole => {
                "attach it split by step: `bme policy --step network`, and so on for all ten"
            }
            _ => "write it into the role as an inline policy",
        });
    }
    Ok(Exit::Done)
}
