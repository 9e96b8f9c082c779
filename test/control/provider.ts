/** What a provider of the control socket answers that knows of no trials. */
const refused = async () => ({
  ok: false,
  changed: [],
  refused: ['no configuration is on trial'],
  warnings: [],
});

export const noTrials = {
  apply: refused,
  confirm: refused,
  rollback: refused,
  configuration: () => ({ file: '/etc/microperimeter/config.yaml', text: '' }),
};
