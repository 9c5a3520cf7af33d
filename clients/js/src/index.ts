/** Talk to game servers through a fastway gateway, over WebSocket. */

export { Connection, type Message } from "./connection.js";
export {
  BadText,
  type CloseCode,
  ConnectFailed,
  ConnectionClosed,
  ConnectTimeout,
  DialFailed,
  DialRefused,
  DialTimeout,
  FastwayError,
  GatewayClosed,
  GatewayLost,
  MessageTooLarge,
  PingTimeout,
  ProtocolError,
  ReceiveQueueFull,
  SendQueueFull,
} from "./errors.js";
export { connect, type Ended, Gateway } from "./gateway.js";
export type {
  Clock,
  Options,
  Reconnect,
  Waiting,
  WebSocketConstructor,
  WebSocketLike,
} from "./options.js";
