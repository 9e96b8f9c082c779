/** What `--help` and the manual page teach by. Keys are commands as they are typed. */
export const examples: Readonly<Record<string, readonly string[]>> = {
  run: ['run --config /etc/microperimeter/config.yaml'],
  check: ['check --notes config.yaml', 'check --json config.yaml'],
  explain: [
    'explain tcp 10.1.0.9:41000 to 10.2.0.7:5432 --direction egress',
    'explain --pcap incident.pcap --all',
  ],
  status: ['status', 'status --json', 'status > /dev/null || echo "not redirecting"'],
  top: ['top', 'top --interval 0.5'],
  flows: ['flows --verdict redirect --limit 10', 'flows --port 443 --sort age --watch'],
  doctor: ['doctor', 'doctor --json', 'doctor --config new.yaml'],
  reload: ['reload', 'reload --reclassify'],
  stop: ['stop'],
  diag: ['diag', 'diag --out /tmp/for-support.tar.gz'],
  'guard arm': ['guard arm --wait 10s'],
  'guard status': ['guard status'],
  lab: ['lab', 'lab --firewall suricata', 'lab --scenario ha'],
  apply: ['apply --confirm 60s new.yaml', 'confirm'],
  configure: ['configure --fwip 10.9.0.4 --ca /etc/microperimeter/fw-ca.pem'],
  enable: ['enable eth0'],
  'rule append': ['rule append --proto tcp --remoteport 22 --action pass --name ssh'],
  'rule insert': ['rule insert --index 1 --remoteip 10.3.0.0/16 --action pass'],
  completion: [
    'completion bash > /etc/bash_completion.d/microperimeter',
    'completion fish > ~/.config/fish/completions/microperimeter.fish',
  ],
  man: ['man > microperimeter.1'],
};
