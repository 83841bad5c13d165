//! Problems of an environment file, each with its place in the text.

use std::fmt::Write as _;

use annotate_snippets::{
    AnnotationKind, Group, Level, Renderer, Snippet, renderer::DEFAULT_TERM_WIDTH,
};
use bme_runbooks::environment::Problem;

/// All problems, in the order of the file.
pub(super) fn render(problems: &[Problem]) -> String {
    let renderer =
        if console::colors_enabled_stderr() { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(DEFAULT_TERM_WIDTH);
    let mut text = String::new();
    for problem in problems {
        text.push_str(&renderer.render(&[group(problem)]));
        text.push_str("\n\n");
    }
    if problems.len() > 1 {
        let file = problems[0].file.display();
        let _ = writeln!(text, "{} problems in {file}", problems.len());
    }
    text
}

fn group(problem: &Problem) -> Group<'_> {
    let title = Level::ERROR.primary_title(problem.message.as_str());
    let mut group = if problem.line == 0 {
        Group::with_title(title)
    } else {
        let place =
            AnnotationKind::Primary.span(problem.span.clone()).label(problem.label.as_deref());
        title.element(
            Snippet::source(&*problem.source_text)
                .path(problem.file.to_string_lossy().into_owned())
                .annotation(place),
        )
    };
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bme_runbooks::environment::{self, Target};

    const HEAD: &str =
        "name = \"demo\"\n\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n";

    fn diagnostics(text: &str) -> String {
        console::set_colors_enabled_stderr(false);
        let problems = environment::parse(Path::new("environments/demo.toml"), text, Target::Aws)
            .expect_err("the text has problems");
        super::render(&problems)
    }

    #[test]
    fn unknown_field() {
        insta::assert_snapshot!(diagnostics(&format!("{HEAD}\n[database]\nmulti_as = true\n")));
    }

    #[test]
    fn overlapping_ranges() {
        insta::assert_snapshot!(diagnostics(&format!(
            "{HEAD}\n[network]\ncidr = \"10.0.0.0/16\"\n\
             public_cidrs = [\"10.0.0.0/24\", \"10.0.1.0/24\"]\n\
             private_cidrs = [\"10.0.0.128/25\", \"10.0.2.0/24\"]\n"
        )));
    }

    #[test]
    fn name_of_sixty_characters() {
        insta::assert_snapshot!(diagnostics(&HEAD.replace("demo", &"a".repeat(60))));
    }

    #[test]
    fn several_at_once() {
        insta::assert_snapshot!(diagnostics(&format!(
            "{HEAD}\n[network]\nzones = 5\nnat = \"singel\"\n\n[compute.api]\ncpu = 256\nmemory = 4096\n\
             minimum = 4\nmaximum = 2\n\n[observability]\nlog_retention_days = 31\n"
        )));
    }

    #[test]
    fn broken_syntax() {
        insta::assert_snapshot!(diagnostics("name = \"demo\"\n[aws\nregion = 1\n"));
    }

    #[test]
    fn missing_table() {
        insta::assert_snapshot!(diagnostics("name = \"demo\"\n"));
    }
}
