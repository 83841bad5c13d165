"""Reads policy documents, one path each, and prints what parliament finds in them, a line each."""

import sys

import parliament

for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        policy = parliament.analyze_policy_string(file.read())
    for found in policy.findings:
        found = parliament.enhance_finding(found)
        print(found.severity, found.issue, found.detail, sep="\t")
