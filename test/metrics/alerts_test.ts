import assert from "node:assert/strict";
import { load } from "js-yaml";
import { alertRules } from "../../src/metrics/alerts.ts";
import { unknownNames } from "./families.ts";
import { promtool, testWith } from "./prometheus.ts";

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string };
}

Deno.test("alerts: every rule asks for metrics that exist, and says what to do", async () => {
  const { groups: [{ rules }] } = load(await alertRules()) as { groups: { rules: Rule[] }[] };
  assert.ok(rules.length >= 10);
  for (const { alert, expr, annotations } of rules) {
    assert.match(alert, /^Llumnix[A-Za-z]+$/);
    assert.deepEqual(unknownNames(expr), [], alert);
    assert.match(expr, /(vllm|llumnix):/, alert);
    for (const text of Object.values(annotations)) assert.match(text, /\.$/, alert);
  }
});

/** Alerts on a history, as `promtool test rules` reads them. */
const history = `
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'llumnix:manager_up{job="llumnix",instance="a"}'
        values: '1x5 0x20'
      - series: 'llumnix:expected_instances{job="llumnix",instance="a"}'
        values: '2x25'
      - series: 'llumnix:instance_info{job="llumnix",instance="a",instance_id="i",state="serving"}'
        values: '1x25'
      - series: 'llumnix:expected_instances{job="llumnix",instance="none"}'
        values: '3x25'
      - series: 'llumnix:instance_changes_total{job="llumnix",instance="a",change="lost"}'
        values: '0x3 1x3 4x20'
      - series: 'llumnix:migrations_total{job="llumnix",instance="a",outcome="committed"}'
        values: '0+1x25'
      - series: 'llumnix:migrations_total{job="llumnix",instance="a",outcome="aborted_source"}'
        values: '0+3x25'
    alert_rule_test:
      - {eval_time: 3m, alertname: LlumnixManagerDown, exp_alerts: []}
      - eval_time: 10m
        alertname: LlumnixManagerDown
        exp_alerts:
          - exp_labels: {severity: critical, job: llumnix, instance: a}
            exp_annotations:
              summary: The manager does not answer an API server.
              description: >-
                Requests go on, on the instances that are known. Nothing is migrated, scaled or
                replaced until the manager runs again.
      - eval_time: 10m
        alertname: LlumnixInstancesMissing
        exp_alerts:
          - exp_labels: {severity: warning, job: llumnix, instance: a}
            exp_annotations: &missing
              summary: 1 instances that should serve do not.
              description: "They start, drain or fail to start: the log of the manager says which."
          - exp_labels: {severity: warning, job: llumnix, instance: none}
            exp_annotations:
              summary: 3 instances that should serve do not.
              description: "They start, drain or fail to start: the log of the manager says which."
      - {eval_time: 5m, alertname: LlumnixInstancesCrash, exp_alerts: []}
      - eval_time: 20m
        alertname: LlumnixMigrationsFail
        exp_alerts:
          - exp_labels: {severity: warning, job: llumnix, instance: a}
            exp_annotations:
              summary: 75% of the migrations do not move their request.
              description: The requests stay where they are. The log of the manager has the reasons.
    promql_expr_test:
      - expr: count(ALERTS{alertname="LlumnixInstancesCrash",alertstate="firing"})
        eval_time: 9m
        exp_samples: [{labels: '{}', value: 1}]
`;

testWith(
  "promtool",
  "promtool accepts the alert rules, and they fire when they should",
  async (program) => {
    const directory = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(`${directory}/alerts.yml`, await alertRules());
      await Deno.writeTextFile(`${directory}/history.yml`, history);
      const checked = await promtool(program, ["check", "rules", `${directory}/alerts.yml`]);
      assert.equal(checked.code, 0, checked.text);
      assert.match(checked.text, /SUCCESS: 11 rules found/);
      const tested = await promtool(program, ["test", "rules", `${directory}/history.yml`]);
      assert.equal(tested.code, 0, tested.text);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);
