// What a compiler has to find: each line that says so is wrong, and nothing else is.
import type { Dog, Move, Routes } from "./routes.js";

type Takes = Routes["takes"];
declare const join: Takes["room.join"];
declare const move: Move;

export const dog: Dog = { type: "cow" }; // wrong
export const message: Takes["room.join"]["message"] = { nam: "ann" }; // wrong
export const number: Takes["room.join"]["message"] = { name: 7 }; // wrong
export const ticket: Routes["handshake"]["message"] = { name: "ann" }; // wrong
export const none: Takes["room.leave"] | null = null; // wrong
export const members: string[] = join.answer.member; // wrong
export const first: number = join.answer.members[0] ?? ""; // wrong
export const x: string = move.toSpot.x; // wrong
export const pair: Move["pair"] = [1, "two", 3]; // wrong
export const colour: Move["colour"] = "green"; // wrong
export const right: Move["colour"] = "blue";
