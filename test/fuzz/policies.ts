/** Policies of every kind, compiled once: the fuzzers of the path choose among them. */
import { Established, type Policy } from '../../engine/classifier/lookup.ts';
import { Opener } from '../../engine/classifier/rules.ts';
import { OnFailure, Verdict } from '../../engine/flows.ts';
import { createPolicy, rule } from '../support/engine.ts';

const verdicts = [Verdict.Redirect, Verdict.Pass, Verdict.Drop];

/** TCP to 80 is redirected or drops, UDP to 53 passes, what comes in is dropped. */
const rules = [
  rule({
    protocol: 6,
    remotePort: [{ first: 80, last: 80 }],
    verdict: Verdict.Redirect,
    onFailure: 'drop',
  }),
  rule({ protocol: 17, remotePort: [{ first: 53, last: 53 }], verdict: Verdict.Pass }),
  rule({ protocol: 1, verdict: Verdict.Redirect, onFailure: 'pass' }),
  rule({ opener: Opener.Ingress, verdict: Verdict.Drop }),
];

/** Redirects whatever is not built in. */
export const redirectAll: Policy = createPolicy({ established: Established.Redirect }, []);

export const policies: readonly Policy[] = [
  redirectAll,
  redirectAll,
  ...verdicts.map((verdict) =>
    createPolicy({ default: verdict, onTelemetryLoss: OnFailure.Drop }, []),
  ),
  createPolicy({ established: Established.Reset }, []),
  createPolicy({ observe: true }, []),
  createPolicy({ rolloutPercent: 50, established: Established.Redirect }, []),
  createPolicy({ established: Established.Redirect }, rules),
  createPolicy({ established: Established.Reset, onTelemetryLoss: OnFailure.Drop }, rules),
];
