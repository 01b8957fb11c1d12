/** Follows one user's count of followers, a line whenever it has changed, until it is ended. */

import { asked, opened, type Asked } from "./program";

function main(given: Asked): void {
  let last: number | undefined;
  opened(given).follow(given.ids.at(0)!, ({ followerCount }) => {
    if (followerCount !== last) console.log(followerCount);
    last = followerCount;
  });
}

main(asked());
