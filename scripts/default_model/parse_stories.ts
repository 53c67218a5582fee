/**
 * Reads a JSON list of stories from standard input, and prints how many the grammar makes.
 *
 * deno run scripts/default_model/parse_stories.ts < STORIES
 */
import { parseStory } from "./grammar.ts";

const stories: string[] = JSON.parse(await new Response(Deno.stdin.readable).text());
console.log(stories.filter((story) => parseStory(story) !== null).length);
