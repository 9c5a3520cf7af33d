// What a client in TypeScript writes with the types of tests/support/described.py: all of it is right.
import type { Cat, Move, Routes } from "./routes.js";

type Takes = Routes["takes"];
type Sends = Routes["sends"];

declare function request<R extends keyof Takes>(
  route: R,
  message: Takes[R]["message"],
): Promise<Takes[R]["answer"]>;
declare function on<R extends keyof Sends>(
  route: R,
  call: (message: Sends[R]["message"]) => Sends[R]["answer"] | void,
): void;

const cat: Cat = { type: "Cat", name: "Tom" };
const move: Move = {
  toSpot: { x: 1, y: 2 },
  pet: cat,
  pair: [1, "two"],
  anyTail: [],
  byName: { tail: 0.5 },
  raw: "AAE=",
  row: [1, "one"],
  box: { item: 1 },
  colour: "red",
  whatever: [null],
  named: {},
  then: [],
};

export async function play(): Promise<string[]> {
  const joined = await request("room.join", { name: "ann" });
  await request("room.say", "hello");
  await request("room.later", null);
  const pet = await request("hero.move", { ...move, pace: "run", row: [1, "one", 2] });
  const name: string | number = pet === null ? "" : pet.type === "Cat" ? pet.name : (pet.age ?? 3);
  on("onJoin", (message) => console.log(message.name, name));
  on("ask.name", (text) => ({ name: text.toUpperCase() }));
  return joined.members;
}
