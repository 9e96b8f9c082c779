/**
 * What the profiles of cloud gateways have in common: GENEVE with VNI 0, bare IPv4, and options of
 * one class of which all but a few words are known beforehand and must come back as they went.
 */
import { Reason } from '../parsers/reason.ts';
import {
  bareIpv4,
  GeneveTunnel,
  geneveBaseLength,
  type OptionData,
  OptionTemplate,
} from './geneve-header.ts';

export abstract class GatewayTunnel extends GeneveTunnel {
  private readonly template: OptionTemplate;

  constructor(port: number, optionClass: number, options: readonly OptionData[]) {
    const template = new OptionTemplate(optionClass, options);
    super({ port, vni: 0, optionsLength: template.length, ...bareIpv4 });
    this.template = template;
  }

  /** Everything but the words that are the flow's own. */
  protected writeTemplate(view: DataView, at: number): void {
    this.writeBase(view, at, false);
    this.template.write(view, at + geneveBaseLength);
  }

  /** Whether `length` bytes of an option's data are those that we write at `offset`. */
  protected identify(view: DataView, at: number, offset: number, length: number): Reason {
    return this.template.matches(view, at, offset, length) ? Reason.Ok : Reason.TunnelIdentity;
  }
}
